"""Measurements of codecs, through the public surface only: files in, pictures out, nothing estimated.

`unquant bench` is this, in the order of the work:
plan.py           what to measure: codecs, sizes, decodes, metrics; the keys of results
subject.py        what a codec under test must offer; the images
anchors.py        JPEG, WebP, AVIF, JPEG XL, HEIC, JPEG 2000 at a quality or at a size
worker.py         one image: encode, decode, score
measure.py        many images, in one process or several
store.py          the folder of results: rows, environments, the cache
rows.py           one row: one picture of one image from one codec at one setting
metrics/          PSNR to CLIP-IQA, on 8-bit RGB
distribution.py   distances between sets of pictures, with their standard errors
summary.py        means over the images
report/           the page that shows it all; bd.py, published.py: rate differences, other codecs' points

environment.py    what ran where; tables.py: Markdown tables, JSON
speed.py          seconds and memory, beside AVIF's in the same run
figures.py        curves of one metric against another
"""
