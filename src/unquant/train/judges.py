"""The networks that a stage compares pictures by."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from unquant.errors import ModelMissing
from unquant.perceptual import DISTS, LPIPS, load_dists, load_lpips

__all__ = ["Judges", "Wanted", "load_judges"]


class Wanted(NamedTuple):
    """Which of them a stage needs: LPIPS on these feature networks, "alex" and "vgg", and DISTS.

    table: of the recipe, where lpips_weight = 0 does without LPIPS; "" where nothing does.
    """

    lpips: Iterable[str] = ()
    dists: bool = False
    table: str = ""


class Judges(NamedTuple):
    """What was wanted, on the device: LPIPS by the name of its feature network, and DISTS."""

    lpips: dict[str, LPIPS]
    dists: DISTS | None

    @property
    def one(self) -> LPIPS | None:
        """LPIPS of a stage that wants one network at most."""
        return next(iter(self.lpips.values()), None)


def load_judges(wanted: Wanted, folder: Path | None, device: torch.device) -> Judges:
    """Load the networks from a folder, None for the one that UNQUANT_METRICS names. Raises ModelMissing, WeightsError."""
    try:
        lpips = {name: load_lpips("vgg" if name == "vgg" else "alex", folder) for name in sorted(set(wanted.lpips))}
    except ModelMissing as e:
        hint = f"; or set lpips_weight = 0 in [{wanted.table}] to train without LPIPS" if wanted.table else ""
        raise ModelMissing(f"{e}{hint}") from None
    dists = load_dists(folder) if wanted.dists else None
    for network in (*lpips.values(), *([dists] if dists else [])):
        network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return Judges(lpips, dists)
