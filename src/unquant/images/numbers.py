"""Numbers of any depth to 8 bit: 16-bit grey, arrays and tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from unquant.errors import OptionError
from unquant.images.checks import check_size

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["U8", "U16", "array_to_8_bit", "checked_16_bit", "from_16_bit", "gray_to_8_bit", "tensor_to_8_bit"]

U8: TypeAlias = npt.NDArray[np.uint8]
U16: TypeAlias = npt.NDArray[np.uint16]


def array_to_8_bit(values: npt.NDArray[Any]) -> U8:
    """(h, w, 1 | 3 | 4) uint8 of what `to_picture` takes as a numpy array."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4):
        raise OptionError(f"array: expected (h, w) or (h, w, 1, 3 or 4), not {values.shape}")
    check_size("array", values.shape[0], values.shape[1])
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return from_16_bit(values)
    raise OptionError(f"array: expected uint8 or uint16, not {values.dtype}")


def tensor_to_8_bit(tensor: Tensor) -> U8:
    """(h, w, 1 | 3 | 4) uint8 of what `to_picture` takes as a tensor."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        raise OptionError(f"tensor: expected (1, 3 or 4, h, w), not {tuple(tensor.shape)}")
    check_size("tensor", tensor.shape[1], tensor.shape[2])
    if not tensor.is_floating_point():
        raise OptionError(f"tensor: expected floating point in [0, 1], not {tensor.dtype}")
    values = cast("npt.NDArray[np.float32]", tensor.detach().float().cpu().numpy())
    return _from_unit_range(values, "tensor").transpose(1, 2, 0)


def gray_to_8_bit(values: npt.NDArray[Any]) -> U8:
    """(h, w) uint8 of the values of a PIL image of mode F, in [0, 1]. Raises OptionError."""
    return _from_unit_range(values, "image of mode F")


def checked_16_bit(values: npt.NDArray[Any], mode: str) -> U16:
    """(h, w) uint16 of the values of a PIL image of mode I or I;16. Raises OptionError for any outside 0..65535."""
    if values.min() < 0 or values.max() > 65_535:
        raise OptionError(f"image of mode {mode}: values must lie in 0..65535, not {values.min()}..{values.max()}")
    return values.astype(np.uint16)


def from_16_bit(values: npt.NDArray[Any]) -> U8:
    """round(v·255/65535) = floor((v + 128)/257): 255/65535 is 1/257, and as 257 is odd there are no ties."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_unit_range(values: npt.NDArray[Any], name: str) -> U8:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # false for NaN too
        raise OptionError(f"{name}: values must lie in [0, 1], these span {low:g} to {high:g}")
    return np.rint(values * 255).astype(np.uint8)
