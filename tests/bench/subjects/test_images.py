"""Pictures as the benchmarks read them: with their colours, and named by what is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_files import P3_XYZ, make_exif, rgb_icc
from PIL import Image

from unquant.bench.subjects.images import pixels_id, read_image
from unquant.errors import InputError


def test_what_is_seen_names_a_picture(picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "plain.png")
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=make_exif(6))
    deep = np.asarray(picture.convert("L")).astype(np.uint16)
    Image.fromarray(deep * 257).save(tmp_path / "deep.png")
    picture.convert("L").save(tmp_path / "grey.png")
    picture.save(tmp_path / "wide.png", icc_profile=rgb_icc(P3_XYZ, 2.2))
    found = {path.stem: read_image(path) for path in tmp_path.iterdir()}
    assert all((image.mode, image.info) == ("RGB", {}) for image in found.values())
    ids = {name: pixels_id(image) for name, image in found.items()}
    assert ids["plain"] == ids["turned"] == pixels_id(picture)
    assert ids["deep"] == ids["grey"]
    assert len(set(ids.values())) == 3  # the profile changes what is seen


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"x\.png: cannot be read: not an image"):
        read_image(tmp_path / "x.png")
