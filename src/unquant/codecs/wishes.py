"""What a file asks of its decoder, and how that lies in an AVIF file (a `.unq` has it in its header)."""

from __future__ import annotations

from typing import Final, NamedTuple

from unquant.container import Header

__all__ = ["Wishes"]

_VERSION: Final = 1
_PAYLOAD_BYTES: Final = 10
_NO_REALISM: Final = 255


class Wishes(NamedTuple):
    """What a file asks of its decoder, None where it leaves that to the weights: per cent of realism, steps, seed."""

    percent: int | None
    steps: int | None
    seed: int | None

    @classmethod
    def of(cls, header: Header) -> Wishes:
        """What the header of a `.unq` file says."""
        return cls(header.realism, header.steps, header.seed)

    def to_payload(self) -> bytes | None:
        """What unquant's own box in an AVIF file holds: version, per cent of realism (255: none), seed (8 bytes, little
        endian). None where nothing is asked; steps are not kept."""
        if self.percent is None and self.seed is None:
            return None
        percent = _NO_REALISM if self.percent is None else self.percent
        return bytes([_VERSION, percent]) + (self.seed or 0).to_bytes(8, "little")

    @classmethod
    def from_payload(cls, payload: bytes | None) -> Wishes:
        """The inverse; a payload of a later version, or one that is damaged, is no wish: the picture is the same."""
        if payload is None or len(payload) != _PAYLOAD_BYTES or payload[0] != _VERSION:
            return cls(None, None, None)
        percent, seed = payload[1], int.from_bytes(payload[2:], "little")
        if 100 < percent < _NO_REALISM:
            return cls(None, None, None)
        return cls(None if percent == _NO_REALISM else percent, None, seed or None)
