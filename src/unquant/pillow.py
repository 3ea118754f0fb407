"""`import unquant.pillow` makes `.unq` files known to Pillow, by `unquant.register_opener()`."""

from __future__ import annotations

from unquant.pillow_plugin import UnqImageFile, register_opener

__all__ = ["UnqImageFile", "register_opener"]

register_opener()
