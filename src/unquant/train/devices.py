"""Where a run computes, and in which precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from unquant.errors import TrainingError

__all__ = ["Place", "computes_in_bf16", "open_devices"]


class Place(NamedTuple):
    """A Lightning Fabric, the precision that it computes in, and a note where that is not the one asked for."""

    fabric: Any
    precision: str
    note: str | None


def open_devices(device: str, count: int, precision: str) -> Place:
    """Open `count` devices of a kind: "auto", "cpu" or "cuda". bfloat16 falls back to float32 where it is emulated.

    Raises TrainingError without Lightning or where there are not so many devices.
    """
    try:
        from lightning.fabric import Fabric
    except ImportError:
        raise TrainingError("training needs Lightning: pip install 'unquant[train]'") from None
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.device_count() < count:
        raise TrainingError(f"{count} CUDA devices are asked for, {torch.cuda.device_count()} are here")
    note = None
    if precision == "bf16-mixed" and not computes_in_bf16(device):
        precision, note = "32-true", f"no bfloat16 arithmetic on this {device}: training in float32"
    fabric = Fabric(accelerator=device, devices=count, precision=precision)  # pyright: ignore[reportArgumentType]
    fabric.launch()
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return Place(fabric, precision, note)


def computes_in_bf16(device: str) -> bool:
    """Whether a kind of device multiplies bfloat16 natively, rather than by emulation."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device != "cpu" or any(test is not None and test() for test in tests)
