"""Damage of a file: it is seen, whichever byte it hits, and before work is done on the picture."""

from __future__ import annotations

import subprocess
import sys
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from unquant.codecs.interface import AnyCodec
from unquant.codecs.options import DecodeKeywords
from unquant.container import Container, Tile, parse, stream_crc
from unquant.errors import BitstreamError, CorruptStream, ImageTooLarge, ModelMissing

GOLDEN = Path(__file__).parent.parent / "golden"
DAMAGE = (BitstreamError, ImageTooLarge, ModelMissing)
"""What a damaged file may be: above all no intact one; also one of other sides, or of other weights."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("tiny-point", "tiny-metadata", "tiny-map", "tiny_cdc-point", "tiny_cdc-alpha"),
        *("tiny_sliced-point", "tiny_av1-alpha", "tiny_av1-half"),
    ],
)
def test_every_byte_counts(name: str, request: pytest.FixtureRequest) -> None:
    """Each byte of a file is replaced by others: all bits of it, one of them, the next number. What still decodes gives the
    same picture."""
    codec: AnyCodec = request.getfixturevalue(name.partition("-")[0])
    data = (GOLDEN / f"{name}.unq").read_bytes()
    # a first look at slices decodes too little for a checksum
    options: DecodeKeywords = {"realism": 0.0} if name.startswith("tiny_sliced") else {"preview": True}
    right = codec.decode(data, **options)
    passed: set[int] = set()
    for place, byte in enumerate(data):
        for other in {byte ^ 0xFF, byte ^ 1 << place % 8, (byte + 1) % 256}:
            try:
                found = codec.decode(data[:place] + bytes([other]) + data[place + 1 :], **options)
            except DAMAGE:
                continue
            passed.add(place)
            assert (found, found.info) == (right, right.info), f"byte {place}: {byte} became {other}"
    # the last of a coder stream is the coder's state of 64 bits, of which some tell no symbol from another
    assert len(passed) <= 8


@pytest.mark.slow
def test_a_first_look_at_a_damaged_file(tiny_sliced: AnyCodec) -> None:
    """Nothing guards it: it is another picture, of the size that the header says, or an error that is named."""
    data = (GOLDEN / "tiny_sliced-point.unq").read_bytes()
    right, wrong = tiny_sliced.decode(data, preview=True), 0
    for place, byte in enumerate(data):
        damaged = data[:place] + bytes([byte ^ 0xFF]) + data[place + 1 :]
        try:
            found = tiny_sliced.decode(damaged, preview=True)
        except DAMAGE:
            continue
        header = parse(damaged).header
        assert found.size == (header.width, header.height)
        wrong += found != right
    assert wrong


def test_a_bad_alpha_is_found_before_the_picture_is_drawn(
    every: AnyCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photo.crop((100, 100, 148, 140)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    container = parse(every.encode(image, quality=20))
    assert container.alpha is not None
    drawn: list[object] = []
    g_s = getattr(every.model, "g_s", None)
    draws = (g_s, "draft") if hasattr(g_s, "draft") else (every, "_draw")
    monkeypatch.setattr(*draws, lambda *args: drawn.append(args))
    for bad in (b"\x00" + zlib.compress(bytes(48 * 40 - 1)), b"\x01/" + bytes(9), b"\x00"):
        damaged = replace(container, alpha=bad).to_bytes()
        with pytest.raises(CorruptStream, match="alpha plane"):
            every.decode(damaged)
    assert not drawn
    with suppress(Exception):  # what it draws is nothing
        every.decode(container.to_bytes())
    assert drawn


DECODED_ALONE = """
import resource, sys
import unquant
weights, small, *bombs = sys.argv[1:]
codec = unquant.load(weights)
codec.decode(small)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for bomb in bombs:
    try:
        codec.decode(bomb, max_pixels=2**28)
    except unquant.CorruptStream:
        continue
    sys.exit(f"{bomb}: decoded")
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory in kilobytes")
def test_a_size_that_is_claimed_takes_no_memory(every_weights: Path, tmp_path: Path) -> None:
    """A file of some hundred kilobytes says that it holds 2^28 pixels, and its first tile holds nothing of the kind. Planes
    of that many pixels would take gigabytes."""
    name = "plain" if "av1" in every_weights.stem else "point"
    small = GOLDEN / f"{every_weights.stem}-{name}.unq"
    container = parse(small.read_bytes())
    header = replace(container.header, width=2**14, height=2**14)
    stream = container.tiles[0].stream
    tile = Tile(stream, stream_crc(header.to_bytes(), 0, stream))
    bombs: list[str] = []
    for number, one in enumerate((tile, Tile(b"", 0))):
        bomb = tmp_path / f"{number}.unq"
        bomb.write_bytes(Container(header, (one,) * (1 if header.family == "av1" else header.max_tiles)).to_bytes())
        bombs.append(str(bomb))
    command = [sys.executable, "-c", DECODED_ALONE, str(every_weights), str(small), *bombs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 * 2**10
