"""How far a call has come, told to whoever watches it from the same thread. No torch.

with watched(lambda stage, done, total: print(stage, done, total)):
    codec.decode(data)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Final, TypeAlias, TypeVar

__all__ = ["Watch", "counted", "tell", "unheard", "watched"]

T = TypeVar("T")

Watch: TypeAlias = Callable[[str, int, int | None], None]
"""Takes the stage, how many of its steps are done, and how many there are; None where nobody knows."""
_watch: Final[ContextVar[Watch | None]] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Generator[None]:
    """What runs within this context, in this thread, tells `watch` of its steps. One stage may come several times."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def unheard() -> AbstractContextManager[None]:
    """Whoever watches is told nothing of what runs within: small steps of one that is counted."""
    return watched(lambda stage, done, total: None)


def tell(stage: str, done: int, total: int | None = None) -> None:
    """Tells whoever watches."""
    watch = _watch.get()
    if watch is not None:
        watch(stage, done, total)


def counted(items: Iterable[T], stage: str, total: int) -> Iterator[T]:
    """The items; each is told of as done when the next one is asked for."""
    tell(stage, 0, total)
    for number, item in enumerate(items, 1):
        yield item
        tell(stage, number, total)
