"""What a file says of itself, without decoding it and without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from unquant.codecs.registry import models
from unquant.container import parse

__all__ = ["Info", "info"]


@dataclass(frozen=True, slots=True)
class Info:
    """The header of a `.unq` file and what else it holds.

    stream_id: hex, the weights it needs; model: the installed model that has it, or None. q_index: the quantisation step
    is 2^(q_index/64). realism (0..1), steps and seed of the drawing: what the file asks of a decoder,
    None where it leaves that to the weights. bpp: 8·bytes/pixels.
    sections: sizes in bytes of alpha, icc, exif, xmp where present.
    """

    family: str
    stream_id: str
    model: str | None
    width: int
    height: int
    q_index: int
    q_map: bool
    realism: float | None
    steps: int | None
    seed: int | None
    tiles: int
    bytes: int
    bpp: float
    sections: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)


def info(data: bytes) -> Info:
    """Read a file's header and the sizes of its parts. Raises BitstreamError or ImageTooLarge."""
    container = parse(data)
    header = container.header
    stream_id = header.stream_id.hex()
    model = next((m.name for m in models() if (m.family, m.stream_id) == (header.family, stream_id)), None)
    sections = {"alpha": container.alpha, "icc": container.icc, "exif": container.exif, "xmp": container.xmp}
    return Info(
        family=header.family,
        stream_id=stream_id,
        model=model,
        width=header.width,
        height=header.height,
        q_index=header.q_index,
        q_map=header.q_map is not None,
        realism=None if header.realism is None else header.realism / 100,
        steps=header.steps,
        seed=header.seed,
        tiles=len(container.tiles),
        bytes=len(data),
        bpp=8 * len(data) / (header.width * header.height),
        sections={name: len(section) for name, section in sections.items() if section is not None},
    )
