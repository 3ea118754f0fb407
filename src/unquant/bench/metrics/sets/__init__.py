"""How far the decoded pictures as a set are from the originals as a set: KD-VGG16, FD-VGG16, KID and FID.

    pictures ──►┤256-px patches├──►┤VGG16 or Inception├──► features of patches, (n, d) a picture ──► stored
    features of originals, of decodes ──►┤kernel or Fréchet distance├──► value, standard error; 0 for equal sets

Patches as in HiFiC (Mentzer et al. 2020, arXiv 2006.09965, appendix). Inception gives KID (Bińkowski et al. 2018,
"Demystifying MMD GANs", arXiv 1801.01401) and FID (Heusel et al. 2017, arXiv 1706.08500) as they are usually computed.
With the features of VGG16 they are called KD-VGG16 and FD-VGG16: their values must not be compared with those of KID and
FID. A Fréchet distance is measured only where patches outnumber the dimensions of the features, as its covariances are
singular elsewhere.

KD-VGG16 differs from KID in one more thing. Pictures, not patches, are the independent draws: patches of one picture
overlap and resemble each other, and an original resembles its own decode. So each mean of the kernel (x·y/d + 1)³ goes
over the pairs of patches from two *different* pictures, between the two sets as within each: the U-statistic of Gretton
et al. 2012 (JMLR 13, lemma 6) with pictures as the draws. Its expectation is the distance itself, 0 for a set and
itself; counting an original beside its own decode, as KID does, favours codecs for closeness of each picture.
"""
