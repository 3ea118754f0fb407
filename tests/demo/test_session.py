"""What the page asks for, without a server."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unquant import codecs
from unquant.demo import session as sessions
from unquant.demo.session import LIMITS, Photograph, Session
from unquant.errors import (
    ImageTooLarge,
    InputError,
    ModelMissing,
    NotUnquant,
    OptionError,
    RateUnreachable,
)


@pytest.fixture
def session(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tiny_weights.parent))
    return Session(str(tiny_weights.parent / "tiny_av1.safetensors"))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def small(session: Session, photo: Image.Image) -> Photograph:
    return session.add_photograph(png(photo.crop((200, 100, 360, 220))), "cup.png")


def pixels(session: Session, key: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(session.content(key))).convert("RGB"))


def test_the_bundled_photograph_is_shown_as_it_is(session: Session, photo: Image.Image) -> None:
    found = session.bundled()
    assert (found.name, found.width, found.height) == ("coffee.png", 600, 400)
    assert np.array_equal(pixels(session, found.picture), np.asarray(photo))
    assert session.models.keys() >= {"tiny_av1", "tiny", "tiny_cdc"}
    assert next(iter(session.models)) == "tiny_av1"


@pytest.mark.slow
@pytest.mark.parametrize(("model", "container"), [("tiny_av1", "unq"), ("tiny_av1", "avif"), ("tiny", "unq")])
def test_there_and_back_and_again_as_a_file(session: Session, small: Photograph, model: str, container: str) -> None:
    effort = 5 if model == "tiny_av1" else None
    file = session.encode(small.key, small.name, model, bpp=2, effort=effort, container=container)
    data = session.content(file.key)
    assert file.name == f"cup.{container}"
    assert file.bytes == len(data) <= 2 * 160 * 120 / 8
    assert file.bpp == 8 * len(data) / (160 * 120)
    drawn = session.decode(file.key, file.model, realism=0.5, seed=3)
    expected = codecs.decode(data, model=str(session.models[model].path), realism=0.5, seed=3)
    assert np.array_equal(pixels(session, drawn.picture), np.asarray(expected))
    again = session.add_file(data, "given.unq")
    assert (again.key, again.width, again.height, again.seconds) == (file.key, 160, 120, None)
    preview = session.decode(file.key, file.model, preview=True)
    assert np.array_equal(
        pixels(session, preview.picture),
        np.asarray(codecs.decode(data, model=str(session.models[model].path), preview=True)),
    )


def test_what_a_file_asks_for_is_told(session: Session, photo: Image.Image) -> None:
    data = codecs.encode(
        photo.crop((0, 0, 64, 64)), model=str(session.models["tiny_cdc"].path), realism=0.25, seed=9, steps=3
    )
    found = session.add_file(data, "a.unq")
    assert (found.model, found.realism, found.steps, found.seed) == ("tiny_cdc", 0.25, 3, 9)


def test_others_at_the_same_bytes(session: Session, small: Photograph) -> None:
    for codec in ("avif", "jpeg"):
        found = session.compare(small.key, codec, 4000)
        assert found.fits
        assert 2500 < found.bytes <= 4000
        difference = pixels(session, found.picture).astype(int) - pixels(session, small.picture)
        assert 1 < np.abs(difference).mean() < 20
        smallest = session.compare(small.key, codec, 10)
        assert not smallest.fits
        assert 10 < smallest.bytes < found.bytes


@pytest.mark.slow
def test_what_was_invented_is_laid_over(session: Session, small: Photograph, monkeypatch: pytest.MonkeyPatch) -> None:
    file = session.encode(small.key, small.name, "tiny_av1", bpp=1, effort=9, container="unq")
    shown = Image.open(io.BytesIO(session.content(session.invented(file.key, "tiny_av1").picture)))
    spread = codecs.uncertainty(session.content(file.key), model=str(session.models["tiny_av1"].path))
    assert (shown.mode, shown.size) == ("RGBA", (160, 120))
    opacity = np.asarray(shown)[:, :, 3]
    assert np.abs(opacity - np.minimum(spread * 255 / 32, 255)).max() <= 1
    assert opacity.std() > 1
    monkeypatch.setattr(sessions, "MAP_PIXELS", 160 * 120 - 1)
    with pytest.raises(ImageTooLarge, match="invented"):
        session.invented(file.key, "tiny_av1")


def test_a_photograph_is_turned_and_keeps_its_alpha(session: Session) -> None:
    image = Image.new("RGBA", (30, 20), (10, 200, 30, 128))
    exif = Image.Exif()
    exif[0x112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    found = session.add_photograph(buffer.getvalue(), "turned.png")
    assert (found.width, found.height) == (20, 30)
    shown = Image.open(io.BytesIO(session.content(found.picture)))
    assert (shown.mode, shown.size, shown.getpixel((0, 0))) == ("RGBA", (20, 30), (10, 200, 30, 128))


def test_errors_are_typed_and_name_the_file(session: Session, small: Photograph, photo: Image.Image) -> None:
    with pytest.raises(InputError, match=r"^words\.jpg: "):
        session.add_photograph(b"no picture at all", "words.jpg")
    with pytest.raises(NotUnquant, match=r"^photo\.unq: "):
        session.add_file(png(photo), "photo.unq")
    with pytest.raises(InputError, match="no longer kept"):
        session.decode("0" * 32, "tiny_av1")
    with pytest.raises(ModelMissing, match="tiny_av1"):
        session.encode(small.key, "a", "/etc/passwd", bpp=1, effort=None, container="unq")
    with pytest.raises(RateUnreachable):
        session.encode(small.key, "a", "tiny_av1", bpp=0.001, effort=None, container="unq")
    with pytest.raises(OptionError, match="effort"):
        session.encode(small.key, "a", "tiny_av1", bpp=1, effort=10, container="unq")
    with pytest.raises(OptionError, match="target_bytes"):
        session.compare(small.key, "avif", 0)


def test_no_more_pixels_than_allowed(session: Session) -> None:
    buffer = io.BytesIO()
    Image.new("1", (10_001, 10_000)).save(buffer, "PNG")
    with pytest.raises(ImageTooLarge, match=r"^wide\.png: .*10001"):
        session.add_photograph(buffer.getvalue(), "wide.png")
    assert LIMITS.max_pixels == 10**8


@pytest.mark.slow
def test_warnings_come_with_the_answer(session: Session, small: Photograph) -> None:
    file = session.encode(small.key, small.name, "tiny_av1", bpp=500, effort=9, container="unq")
    assert any("highest" in note for note in file.notes), file.notes
    assert session.decode(file.key, file.model).notes == ()


def test_the_oldest_is_forgotten(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEPT_BYTES", 60_000)
    rng = np.random.default_rng(0)
    noise = [png(Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))) for _ in range(6)]  # 12 kB each
    first, *others = [session.add_photograph(data, "a.png").key for data in noise]
    assert session.content(others[-1]) == noise[-1]
    with pytest.raises(InputError, match="no longer kept"):
        session.content(first)
