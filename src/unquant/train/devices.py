"""Where a run computes, and in which precision."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from unquant.errors import TrainingError

__all__ = ["Place", "computes_in_bf16", "exchanging", "open_devices"]

_DESCRIBED = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
"""What Lightning reads of a cluster that no launcher describes."""
_OF_THE_NETWORK = ("gloo", "nccl", "connection closed", "connection reset", "timed out waiting")
"""Words of errors of an exchange between processes: torch gives most of them no class of their own."""


class Place(NamedTuple):
    """A Lightning Fabric, the precision that it computes in, and a note where that is not the one asked for."""

    fabric: Any
    precision: str
    note: str | None


def open_devices(device: str, count: int, nodes: int, precision: str) -> Place:
    """Open `count` devices of a kind, "auto", "cpu" or "cuda", on each of `nodes` machines. bfloat16 falls back to float32
    where it is emulated.

    Raises TrainingError without Lightning, where there are not so many devices, and where nothing says which machines there
    are or others were started than those asked for.
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
    _check_cluster(count, nodes)
    fabric = Fabric(accelerator=device, devices=count, num_nodes=nodes, precision=precision)  # pyright: ignore[reportArgumentType]
    with exchanging():
        fabric.launch()
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return Place(fabric, precision, note)


def _check_cluster(count: int, nodes: int) -> None:
    """Whether the processes that were started are those that are asked for."""
    from lightning.fabric.plugins import environments

    kinds = ("TorchElasticEnvironment", "SLURMEnvironment", "LSFEnvironment", "MPIEnvironment")
    launcher = next((kind for kind in (getattr(environments, name) for name in kinds) if kind.detect()), None)
    if launcher is None:
        missing = [name for name in _DESCRIBED if name not in os.environ]
        if nodes > 1 and missing:
            raise TrainingError(
                f"{nodes} machines are asked for, and nothing says which: start by torchrun or srun, or set"
                f" {', '.join(missing)} on each (address and free port of the first machine, this machine's number from 0)"
            )
        return
    try:
        started = int(launcher().world_size())
    except (RuntimeError, ValueError, KeyError) as e:
        raise TrainingError(f"the launcher's settings do not serve: {e}") from None
    if started != count * nodes:
        name = launcher.__name__.removesuffix("Environment")
        raise TrainingError(
            f"{started} processes were started ({name}), and {count * nodes} are asked for:"
            f" --num-nodes {nodes} times --devices {count}"
        )


@contextmanager
def exchanging() -> Generator[None]:
    """Within it, the loss of another process of the run is a TrainingError."""
    try:
        yield
    except RuntimeError as e:
        text = str(e).strip().partition("\n")[0]
        if not isinstance(e, torch.distributed.DistError) and not any(w in text.lower() for w in _OF_THE_NETWORK):
            raise
        cause = re.sub(r"^\[\S+\] ", "", text).partition(". ")[0]
        raise TrainingError(
            "another process of the run ended or cannot be reached; if it gave no error of its own, it was killed or its"
            f" machine is lost; --resume goes on from the last checkpoint ({cause})"
        ) from e


def computes_in_bf16(device: str) -> bool:
    """Whether a kind of device multiplies bfloat16 natively, rather than by emulation."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device != "cpu" or any(test is not None and test() for test in tests)
