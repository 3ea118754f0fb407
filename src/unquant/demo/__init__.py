"""The demonstration: a photograph through the codec and back, beside AVIF and JPEG at the same bytes.

terminal.py  the bundled photograph, a table and one picture of all
session.py   what the page asks for: encode, decode, compare; knows no server
requests.py  that as requests of HTTP
web.py       the server of the page; page/: what the browser gets
"""

from __future__ import annotations

from importlib.resources import files

__all__ = ["PHOTOGRAPH", "photograph_file"]

PHOTOGRAPH = "coffee.png"


def photograph_file() -> bytes:
    """The bundled photograph: a PNG of 600×400 pixels, 8-bit RGB (CC0, see coffee.LICENSE.txt)."""
    return files("unquant.demo").joinpath(PHOTOGRAPH).read_bytes()
