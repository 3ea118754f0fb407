from __future__ import annotations

import numpy as np
import pytest
from image_files import (
    ALPHA,
    RGB,
    XMP,
    make_exif,
)

from unquant.errors import OptionError
from unquant.images import from_arrays, to_picture


def test_from_arrays() -> None:
    image = from_arrays(RGB, ALPHA, b"icc", make_exif()[6:], XMP)
    assert image.mode == "RGBA"
    assert image.info == {"icc_profile": b"icc", "exif": make_exif(), "xmp": XMP}
    assert from_arrays(RGB).info == {}
    picture = to_picture(from_arrays(RGB, ALPHA, exif=make_exif()))
    np.testing.assert_array_equal(picture.rgb, RGB)
    np.testing.assert_array_equal(picture.alpha, ALPHA)
    assert picture.exif == make_exif()[6:]


@pytest.mark.parametrize(
    "bad", [(RGB[:, :, 0], None), (RGB.astype(np.uint16), None), (RGB, ALPHA[1:]), (RGB[:0], None)]
)
def test_from_arrays_refuses(bad: tuple[np.ndarray, np.ndarray | None]) -> None:
    with pytest.raises(OptionError):
        from_arrays(*bad)
