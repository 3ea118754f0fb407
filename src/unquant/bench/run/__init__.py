"""Measures codecs on images and keeps all that it finds.

plan.py         what to measure: codecs, sizes, decodes, metrics; the keys of results
environment.py  what ran where
store.py        the folder of results: rows, environments, the cache; rows.py, json_files.py: its files
setup.py        what workers are told, and what they tell
worker.py       one image: encode, decode, score
processes.py    workers in one process or several
measure.py      many images
"""
