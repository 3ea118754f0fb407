"""Measurements of codecs, through the public surface only: files in, pictures out, nothing estimated.

`unquant bench` is this, in the order of the work; a room imports those above it alone:
metrics/    PSNR to CLIP-IQA on 8-bit RGB, one picture against its original; distances between sets of pictures
subjects/   what is measured: models, and JPEG, WebP, AVIF, JPEG XL, HEIC, JPEG 2000 at a quality or at a size; the images
run/        the plan, one image after the other, the folder of results
analysis/   what the rows say: means, curves, rate differences, codecs at equal bytes, regular texture
report/     figures, and the page that shows it all

tuning/ is beside that: it decodes with the networks themselves, for `unquant train tune`.
"""
