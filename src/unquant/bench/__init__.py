"""Measurements of codecs, through the public surface only: files in, pictures out, nothing estimated.

metrics.py        PSNR, MS-SSIM, LPIPS, DISTS and the energy of fine detail, on 8-bit RGB
distribution.py   a kernel distance between sets of pictures, with its standard error
anchors.py        JPEG, WebP, AVIF at a quality or at a size
rd.py             rate against distortion and perception, over a folder of images
speed.py          seconds and memory, beside AVIF's in the same run
report.py         what ran where, Markdown tables, JSON
subject.py        what a codec under test must offer
"""
