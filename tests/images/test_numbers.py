from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    ALPHA,
    RGB,
    saved,
)
from PIL import Image

from unquant import images
from unquant.errors import ImageTooLarge, OptionError
from unquant.images import to_picture

ALL_16 = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
ALL_8 = np.array([(v * 510 + 65_535) // 131_070 for v in range(65_536)], np.uint8).reshape(256, 256)


def test_16_bit_rounds_exactly() -> None:
    for mode in ("I;16", "I;16L", "I;16B"):
        order = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, (256, 256), ALL_16.astype(order).tobytes())
        np.testing.assert_array_equal(to_picture(image).rgb[:, :, 2], ALL_8)
    for image in (Image.fromarray(ALL_16.astype(np.int32)), saved(Image.fromarray(ALL_16), "PNG")):
        np.testing.assert_array_equal(to_picture(image).rgb[:, :, 0], ALL_8)
    for values in (ALL_16, ALL_16[:, :, None], ALL_16.astype(">u2"), np.dstack([ALL_16] * 3)):
        np.testing.assert_array_equal(to_picture(values).rgb[:, :, 1], ALL_8)
    picture = to_picture(np.dstack([ALL_16] * 4))
    np.testing.assert_array_equal(picture.alpha, ALL_8)


def test_float_mode() -> None:
    image = Image.fromarray(np.array([[0, 0.5 / 255 + 1e-4, 0.5, 1]], np.float32))
    assert to_picture(image).rgb[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_float_mode_out_of_range(value: float) -> None:
    with pytest.raises(OptionError, match=r"\[0, 1\]"):
        to_picture(Image.fromarray(np.array([[0.5, value]], np.float32)))


@pytest.mark.parametrize("value", [-1, 65_536])
def test_integer_mode_out_of_range(value: int) -> None:
    with pytest.raises(OptionError, match="65535"):
        to_picture(Image.fromarray(np.array([[0, value]], np.int32)))


def test_numpy_shapes() -> None:
    np.testing.assert_array_equal(to_picture(RGB).rgb, RGB)
    np.testing.assert_array_equal(to_picture(RGB[:, :, :1]).rgb, np.repeat(RGB[:, :, :1], 3, 2))
    np.testing.assert_array_equal(to_picture(RGB[:, :, 0]).rgb, np.repeat(RGB[:, :, :1], 3, 2))
    picture = to_picture(np.dstack([RGB, ALPHA])[::-1])
    np.testing.assert_array_equal(picture.rgb, RGB[::-1])
    np.testing.assert_array_equal(picture.alpha, ALPHA[::-1])
    assert picture.rgb.flags.c_contiguous


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 4, 2), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((3, 4, 3), np.float32),
        np.zeros((3, 4, 3), np.int16),
        np.zeros((1, 3, 4, 3), np.uint8),
        "a path",
        None,
        [[1, 2]],
    ],
)
def test_other_inputs_are_refused(bad: object) -> None:
    with pytest.raises(OptionError):
        to_picture(bad)  # type: ignore[arg-type]


def test_huge_arrays_are_refused() -> None:
    with pytest.raises(ImageTooLarge):
        to_picture(np.broadcast_to(np.uint8(0), (1 << 15, (1 << 13) + 1, 3)))


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    chw = torch.from_numpy(RGB).permute(2, 0, 1) / 255
    for tensor in (chw, chw.double(), chw.clone().requires_grad_()):
        np.testing.assert_array_equal(to_picture(tensor).rgb, RGB)
    np.testing.assert_array_equal(to_picture(chw[:1]).rgb, np.repeat(RGB[:, :, :1], 3, 2))
    rgba = torch.cat([chw, torch.from_numpy(ALPHA)[None] / 255])
    np.testing.assert_array_equal(to_picture(rgba).alpha, ALPHA)
    assert to_picture(chw.half()).rgb.shape == RGB.shape
    bad = [chw * 2, chw - 0.5, chw[None], chw[:2], torch.full((3, 2, 2), float("nan")), chw[:, :0]]
    for tensor in [*bad, torch.zeros(3, 2, 2, dtype=torch.uint8)]:
        with pytest.raises(OptionError):
            to_picture(tensor)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, numpy as np; from PIL import Image; from unquant.images import to_picture;"
        "to_picture(Image.new('RGB', (2, 2))); to_picture(np.zeros((2, 2), np.uint8));"
        "assert 'torch' not in sys.modules"
    )
    package = Path(images.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(package)})
