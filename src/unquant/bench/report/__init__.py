"""What shows the results.

figures.py   curves as figures, in files and on the page; looks.py: colours and markers
page.py      the page: one HTML file that needs nothing else
charts.py, pictures.py, tables.py, words.py   what stands on it
"""
