"""What a file says of itself, without decoding it and without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from unquant.codecs.av1_rate import nominal_base_q_idx
from unquant.codecs.options import Source
from unquant.codecs.registry import models
from unquant.codecs.sources import file_bytes
from unquant.codecs.wishes import Wishes
from unquant.container import Container, parse, pixel_limit, salvage
from unquant.container.avif import is_avif, parse_avif
from unquant.families import AVIF_FAMILY

__all__ = ["Info", "info"]


@dataclass(frozen=True, slots=True)
class Info:
    """The header of a `.unq` file, or the headers of an `.avif`, and what else it holds.

    container: "unq" or "avif". family: of an `.avif` av1, which redraws it. stream_id: hex, the weights that a `.unq` needs;
    empty for an `.avif`, which any weights of av1 draw. model: the installed model that draws the file, or None.
    width, height: pixels, of an `.avif` as coded, before `orientation` (1..8, EXIF's) turns them.
    q_index: the quantisation step is 2^(q_index/64); of av1 it is AV1's base_q_idx, 0..255, and q_nominal says that it is
    no more than what the bytes per pixel let expect, because the headers do not tell: a grid, or a frame that needs others.
    q_map: the step differs across the image. realism (0..1), steps and seed of the drawing: what the file asks of a
    decoder, None where it leaves that to the weights. tiles: of a `.unq`, 1 otherwise. bpp: 8·bytes/pixels.
    sections: bytes that alpha, icc, exif, xmp take in the file, where present. has_alpha: wherever that is kept.
    half: the base is coded at half size (av1). Of an `.avif` alone: chroma: "4:0:0", "4:2:0", "4:2:2" or "4:4:4".
    using_qmatrix: quantisation matrices are used. delta_q_present: the step differs by superblock. film_grain: a decoder
    adds noise, or may. grid: the picture is put together from several.
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
    container: str = "unq"
    q_nominal: bool = False
    half: bool = False
    has_alpha: bool = False
    orientation: int | None = None
    chroma: str | None = None
    using_qmatrix: bool | None = None
    delta_q_present: bool | None = None
    film_grain: bool | None = None
    grid: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)


def info(data: Source, *, allow_partial: bool = False, max_pixels: int | None = None) -> Info:
    """Read a file's headers and the sizes of its parts, without decoding it.

    data: its bytes, its path, or a binary stream of it. allow_partial: what is whole of a damaged `.unq`. max_pixels: of the
    picture, in place of 2^28. Raises BitstreamError, InputError (it cannot be read) or ImageTooLarge.
    """
    data = file_bytes(data)
    with pixel_limit(max_pixels):
        return (
            _of_avif(data)
            if is_avif(data)
            else _of_unq(data, salvage(data).container if allow_partial else parse(data))
        )


def _of_unq(data: bytes, container: Container) -> Info:
    header = container.header
    stream_id = header.stream_id.hex()
    model = next((m.name for m in models() if (m.family, m.stream_id) == (header.family, stream_id)), None)
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
        sections=container.section_sizes,
        half=header.half,
        has_alpha=container.has_alpha,
    )


def _of_avif(data: bytes) -> Info:
    file = parse_avif(data)
    picture = file.picture
    wishes = Wishes.from_payload(file.uuid_payload)
    pixels = file.width * file.height
    index = picture.base_q_idx
    nominal = index is None or (file.grid and index > 0)
    sections = {"alpha": file.alpha, "icc": file.icc, "exif": file.exif, "xmp": file.xmp}
    return Info(
        family=AVIF_FAMILY.name,
        stream_id="",
        model=next((m.name for m in models() if m.draws_avif), None),
        width=file.width,
        height=file.height,
        q_index=nominal_base_q_idx(8 * file.coded_bytes / pixels) if nominal else index or 0,
        q_map=False,
        realism=None if wishes.percent is None else wishes.percent / 100,
        steps=wishes.steps,
        seed=wishes.seed,
        tiles=1,
        bytes=len(data),
        bpp=8 * len(data) / pixels,
        sections={name: len(section) for name, section in sections.items() if section is not None},
        container="avif",
        q_nominal=nominal,
        has_alpha=file.has_alpha,
        orientation=file.orientation,
        chroma=picture.chroma,
        using_qmatrix=picture.using_qmatrix,
        delta_q_present=picture.delta_q_present,
        film_grain=picture.film_grain,
        grid=file.grid,
    )
