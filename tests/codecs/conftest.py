"""A picture for the codecs' own tests."""

from __future__ import annotations

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture(photo: Image.Image) -> Image.Image:
    """Latents of 9×13: several tiles, an odd size."""
    return photo.crop((120, 80, 320, 220))
