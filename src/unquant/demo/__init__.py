"""The demonstration: a photograph through the codec and back, beside AVIF and JPEG at the same bytes.

terminal.py  the bundled photographs, of each a table and one picture of all
session.py   what the page asks for: encode, decode, compare; knows no server
requests.py  that as requests of HTTP
web.py       the server of the page; page/: what the browser gets
"""

from __future__ import annotations

from importlib.resources import files

__all__ = ["CAT", "COFFEE", "photograph_file"]

CAT, COFFEE = "cat.png", "coffee.png"
"""The bundled photographs: an animal of 451×300 pixels, a texture of 600×400, 8-bit RGB (CC0, see the licences beside)."""


def photograph_file(name: str) -> bytes:
    """The PNG of a bundled photograph."""
    return files("unquant.demo").joinpath(name).read_bytes()
