"""The place that a measurement was made in: versions, source, machine, threads."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import unquant
from unquant.bench.subjects import anchors

__all__ = ["code_id", "commit", "cores", "cpu_name", "environment", "limited_threads"]

PACKAGE = Path(unquant.__file__).parent
_APART = frozenset({"__main__.py", "bench", "cli", "demo", "perceptual.py", "train"})
"""What of the package changes no file and no picture."""


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit(package: Path = PACKAGE) -> str | None:
    """The git commit of the source of a package, with "-dirty" where it was changed; None if it is no checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        return subprocess.run(command, capture_output=True, check=True, text=True, env=quiet, timeout=30).stdout.strip()

    try:
        # a package installed below somebody's checkout is not of it: is this very file known there?
        git("ls-files", "--error-unmatch", "__init__.py")
        # not describe, which locks the index whatever it is told, and leaves the lock if it is ended
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def code_id(package: Path = PACKAGE) -> str:
    """8 hex digits that change with the source of the codec: what may change its files or its pictures."""
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        place = source.relative_to(package)
        if place.parts[0] not in _APART:
            digest.update(f"{place.as_posix()}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:8]


def environment(
    weights: Mapping[str, str], codecs: Iterable[str] = ("jpeg", "webp", "avif"), **more: object
) -> dict[str, object]:
    """Versions, source, machine and threads. weights: the id of the weights of each model measured; codecs: anchors."""
    packages: dict[str, str | None] = {"unquant": unquant.__version__}
    for name in ("torch", "pillow", "torchmetrics", "numpy", "constriction"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "versions": packages | {name: anchor.version for name in codecs if (anchor := anchors.find(name))},
        "commit": commit(),
        "code": code_id(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "weights": dict(weights),
        **more,
    }


@contextmanager
def limited_threads(threads: int | None) -> Generator[None]:
    """Limits torch, the anchors and processes started inside to so many threads; None leaves all as it is."""
    if threads is None:
        yield
        return
    before = torch.get_num_threads(), anchors.limit_threads(threads), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        anchors.limit_threads(before[1])
        if before[2] is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = before[2]
