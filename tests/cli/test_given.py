"""Metadata on the command line: kept, given, left out, in the way of a target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_codec import picture
from image_files import P3_XYZ, make_exif, parse_exif, rgb_icc
from PIL import ExifTags, Image, ImageCms
from typer.testing import Result

from unquant.cli.exits import Code
from unquant.container import parse
from unquant.images.orientation import orientation_of

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><note>own</note></x:xmpmeta>'
OTHER_XMP = XMP.replace(b"own", b"given" * 100)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("requires_weights")]


@pytest.fixture
def run(call: Callable[..., Result]) -> Callable[..., str]:
    """Runs `unquant` and gives what it says; it fails unless the exit code is that of `code`."""

    def run(*arguments: object, code: int = 0) -> str:
        done = call(*arguments)
        assert done.exit_code == code, done.stderr
        return done.stderr

    return run


def files_given(folder: Path) -> None:
    (folder / "e.exif").write_bytes(make_exif(3).replace(b"somebody", b"everyone"))
    (folder / "x.xmp").write_bytes(OTHER_XMP)
    (folder / "p3.icc").write_bytes(rgb_icc(P3_XYZ, 2.2))


def test_kept_given_and_left_out(run: Callable[..., str], tmp_path: Path) -> None:
    files_given(tmp_path)
    picture().save(tmp_path / "a.jpg", exif=make_exif(6), xmp=XMP, dpi=(300, 300), quality=95)
    run("encode", "a.jpg")
    run("encode", "a.jpg", "given.unq", "--exif", "e.exif", "--xmp", "x.xmp")
    run("encode", "a.jpg", "replaced.unq", "--strip", "--xmp", "x.xmp")
    for option in ("--strip", "--no-metadata"):
        run("encode", "a.jpg", f"{option}.unq".lstrip("-"), option)
    found = {path.stem: parse(path.read_bytes()) for path in tmp_path.glob("*.unq")}
    assert (tmp_path / "strip.unq").read_bytes() == (tmp_path / "no-metadata.unq").read_bytes()
    assert found["strip"].exif is found["strip"].xmp is None
    assert found["a"].xmp == XMP
    own, given = (parse_exif(found[name].exif) for name in ("a", "given"))
    assert (own[ExifTags.Base.Copyright], own[ExifTags.Base.XResolution]) == ("(c) somebody", 300)
    assert (given[ExifTags.Base.Copyright], given[ExifTags.Base.Orientation]) == ("(c) everyone", 1)
    assert (found["given"].xmp, found["replaced"].xmp, found["replaced"].exif) == (OTHER_XMP, OTHER_XMP, None)
    assert b"XMP " in (tmp_path / "given.unq").read_bytes()
    assert {(c.header.width, c.header.height) for c in found.values()} == {(48, 64)}  # turned by its own EXIF alone
    assert len({c.tiles[0].stream for c in found.values()}) == 1
    run("decode", "given.unq", "b.jpg")
    again = Image.open(tmp_path / "b.jpg")
    assert again.info["xmp"] == OTHER_XMP
    assert again.getexif()[ExifTags.Base.Copyright] == "(c) everyone"
    run("decode", "a.unq", "c.png")
    assert Image.open(tmp_path / "c.png").info["dpi"] == pytest.approx((300, 300), abs=0.01)


def test_a_profile_given_is_converted_from(run: Callable[..., str], tmp_path: Path) -> None:
    files_given(tmp_path)
    picture().save(tmp_path / "a.png")
    picture().save(tmp_path / "p3.png", icc_profile=(tmp_path / "p3.icc").read_bytes())
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (tmp_path / "srgb.icc").write_bytes(srgb)
    run("encode", "a.png")
    run("encode", "p3.png")
    run("encode", "a.png", "b.unq", "--icc", "p3.icc")
    run("encode", "p3.png", "c.unq", "--icc", "srgb.icc")
    a, p3, b, c = ((tmp_path / f"{name}.unq").read_bytes() for name in ("a", "p3", "b", "c"))
    assert p3 == b != a == c


def test_what_is_given_goes_into_avif_files(run: Callable[..., str], tmp_path: Path) -> None:
    files_given(tmp_path)
    picture().save(tmp_path / "a.png")
    run("encode", "a.png", "b.avif", "--exif", "e.exif", "--xmp", "x.xmp")
    assert Image.open(tmp_path / "b.avif").info["xmp"] == OTHER_XMP  # no box of AVIF is deflated
    picture().save(tmp_path / "turned.avif", exif=make_exif(6))
    run("encode", "turned.avif", "c.unq", "--exif", "e.exif", "--xmp", "x.xmp")
    container = parse((tmp_path / "c.unq").read_bytes())
    assert container.xmp == OTHER_XMP
    assert orientation_of(container.exif) == 6
    assert parse_exif(container.exif)[ExifTags.Base.Copyright] == "(c) everyone"
    run("decode", "c.unq", "d.png", "--steps", 0)
    said = run("encode", "turned.avif", "e.unq", "--icc", "p3.icc", code=Code.USAGE)
    assert said.startswith("unquant: error: turned.avif: --icc: ")


def test_what_is_given_but_wrong_is_refused(run: Callable[..., str], tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    wrong = {"jpeg": b"\xff\xd8\xff\xe0", "text": b"no metadata", "empty": b"", "html": b"<html/>", "cut": XMP[:-3]}
    for name, data in {**wrong, "entities": b"<!DOCTYPE x><x/>", "latin": b"<a>\xe4</a>"}.items():
        (tmp_path / name).write_bytes(data)
    for option, names, cause in (
        ("--exif", ("jpeg", "empty", "html"), "EXIF: not a TIFF structure"),
        ("--xmp", ("text", "cut", "latin"), "XMP: not an XML packet in UTF-8"),
        ("--xmp", ("html", "entities"), "XMP: "),
        ("--icc", ("text", "empty"), "not a colour profile"),
        ("--icc", ("gone",), "cannot be read: No such file"),
    ):
        for name in names:
            said = run("encode", "a.png", option, name, code=Code.INPUT)
            assert said.startswith(f"unquant: error: {name}: {cause}")
    assert not list(tmp_path.glob("*.unq"))


def test_metadata_in_the_way_of_a_target(run: Callable[..., str], tmp_path: Path) -> None:
    noise = np.random.default_rng(1).bytes(30_000).hex()
    picture().save(tmp_path / "a.jpg", xmp=f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{noise}</x:xmpmeta>'.encode())
    said = run("encode", "a.jpg", "--target-size", "20k", code=Code.USAGE)
    assert " bytes of it are metadata, which --no-metadata " in said
    assert run("encode", "a.jpg", "--target-size", "20k", "--no-metadata").startswith(
        "unquant: warning: a.jpg: the target"
    )
    padded = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{" " * 36_000}</x:xmpmeta>'.encode()
    picture().save(tmp_path / "b.jpg", xmp=padded)
    run("encode", "b.jpg", "--target-size", 700)
    assert parse((tmp_path / "b.unq").read_bytes()).xmp == padded


def test_an_avif_sequence_is_coded_anew(run: Callable[..., str], tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.avif", save_all=True, append_images=frames[1:])
    said = run("encode", "a.avif")
    assert "has 2 frames or pages, of which the first is read" in said
    assert "with several frames it is coded a second time" in said
    run("encode", "a.avif", "b.unq", "--frame", 1)
    colours = []
    for name in ("a", "b"):
        run("decode", f"{name}.unq", f"{name}.png", "--steps", 0)
        colours.append(np.asarray(Image.open(tmp_path / f"{name}.png"), int).mean((0, 1)))
    assert np.abs(np.array(colours) - ((255, 0, 0), (0, 0, 255))).max() < 12
