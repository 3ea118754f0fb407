"""What rows of results say.

summary.py    means over the images, and what has to be said beside them; tables.py: Markdown
curves.py     one metric against another
equal.py      two codecs at exactly equal bytes
bd.py         Bjøntegaard deltas
study.py      all of the report's numbers: who is best, by how much, on which image
published.py  points of other codecs
texture.py    regular texture in a decode, by its spectrum
"""
