"""What is measured.

models.py   what a model must offer: its public surface
anchors.py  conventional codecs, at good settings; plugins.py: of Pillow, for some of them
search.py   an anchor's file of a given size
images.py   the images
"""
