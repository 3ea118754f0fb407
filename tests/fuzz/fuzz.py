"""Coverage-guided fuzzing of what reads untrusted files, by atheris (libFuzzer):

    python tests/fuzz/fuzz.py TARGET [-runs=N] [-max_total_time=SECONDS] [any option of libFuzzer] [FOLDER]

TARGET: container (parse, salvage and the boxes of an .avif), or a whole decode by tiny weights: ratevar, cdc or av1. A
finding is anything but a picture or one of the errors of a damaged file; its input is left in the working directory. FOLDER
takes the inputs that reach new code; without one they are lost. The golden files are the seeds.

Checksums would keep nearly every changed file from the code behind them, so here they hold whatever they are: once in two
for the container, always for a decode (tests/codecs/test_every_byte.py is about what they catch).
"""

from __future__ import annotations

import sys
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

GOLDEN = Path(__file__).parents[1] / "golden"
MAX_PIXELS = 2**14
"""Of a decode, so that an execution takes milliseconds."""
OPTIONS = ("-rss_limit_mb=4096", "-timeout=60", "-max_len=4096", "-print_final_stats=1")
WEIGHTS = {"ratevar": "tiny", "cdc": "tiny_cdc", "av1": "tiny_av1"}


class _Matching(int):
    """A checksum that equals any other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


_blind = SimpleNamespace(**{**vars(zlib), "crc32": lambda *_: _Matching()})


@contextmanager
def checksums_hold() -> Generator[None]:
    """Within, every checksum of a `.unq` file matches."""
    from unquant.container import file, header

    for module in (file, header):
        module.zlib = _blind
    try:
        yield
    finally:
        for module in (file, header):
            module.zlib = zlib


def container_target() -> Callable[[bytes], None]:
    """Parse, salvage, and write again what parses."""
    from unquant.container import parse, parse_header, salvage
    from unquant.container.avif import parse_avif
    from unquant.errors import BitstreamError, ImageTooLarge

    def read(data: bytes) -> None:
        for one in (parse_header, salvage, parse_avif):
            with suppress(BitstreamError, ImageTooLarge):
                one(data)
        with suppress(BitstreamError, ImageTooLarge):
            container = parse(data)
            assert parse(container.to_bytes()) == container

    def target(data: bytes) -> None:
        read(data)
        with checksums_hold():
            read(data)

    return target


def decode_target(family: str) -> Callable[[bytes], None]:
    """Decode, now a part, now at a smaller scale, now whatever is left: the bytes themselves draw the lot."""
    from PIL import Image

    from unquant import load
    from unquant.errors import BitstreamError, ImageTooLarge, ModelMissing

    codec = load(GOLDEN / f"{WEIGHTS[family]}.safetensors")

    def target(data: bytes) -> None:
        lot = zlib.crc32(data)
        with checksums_hold(), suppress(BitstreamError, ImageTooLarge, ModelMissing):
            picture = codec.decode(
                data,
                preview=bool(lot & 1),
                allow_partial=bool(lot & 2),
                region=(0, 0, 1, 1) if lot & 12 == 12 else None,
                scale=0.125 if lot & 48 == 48 else 1,
                max_pixels=MAX_PIXELS,
            )
            assert isinstance(picture, Image.Image)

    return target


TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "container": container_target,
    **{family: lambda family=family: decode_target(family) for family in WEIGHTS},
}


def seeds(target: str) -> Iterable[bytes]:
    """Golden files of the tiny models, a family's own or all of them, and one with every section."""
    from unquant.container import Container, Header, Tile

    for path in sorted(GOLDEN.glob(f"{WEIGHTS.get(target, 'tiny*')}-*")):
        if path.suffix in (".unq", ".avif"):
            yield path.read_bytes()
    if target == "container":
        header = Header("ratevar", b"abcd", 300, 200, 300, b"\x2c\x01" * (19 * 13), 40, 2, 12345)
        tiles = (Tile(b"one", 1), Tile(b"", 2), Tile(b"three", 3))
        yield Container(header, tiles, b"\x00alpha", b"icc", b"E" * 90, b"<xmp/>" * 50).to_bytes()


def main(name: str, *options: str) -> None:
    import atheris

    with atheris.instrument_imports(include=["unquant"]):
        target = TARGETS[name]()
    with tempfile.TemporaryDirectory() as found:
        start = Path(found, "seeds")
        start.mkdir()
        for number, data in enumerate(seeds(name)):
            (start / str(number)).write_bytes(data)
        folders = [option for option in options if not option.startswith("-")] or [found]
        flags = [option for option in options if option.startswith("-")]
        atheris.Setup([sys.argv[0], *OPTIONS, *flags, *folders, str(start)], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
