"""Conventional codecs: sizes are met from below, files are bare, what is not installed is named."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unquant.bench.subjects import anchors
from unquant.bench.subjects.search import encode_to_size
from unquant.codecs.avif import BASE, AvifOptions, encode_avif
from unquant.errors import InputError, OptionError

ALL = [pytest.param(name, marks=pytest.mark.skipif(bool(anchors.missing(name)), reason=str(anchors.missing(name))))
       for name in anchors.ANCHORS]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("target", [3200, 9000])
def test_the_size_is_met_from_below_and_one_step_more_is_no_better(
    picture: Image.Image, name: str, target: int
) -> None:
    anchor, found = anchors.ANCHORS[name], encode_to_size(picture, name, target)
    assert found.fits
    assert 0.8 * target < len(found.data) <= target
    assert found.data == anchors.encode(picture, name, found.quality)
    more = len(anchors.encode(picture, name, found.quality + max(1, anchor.step)))
    assert not len(found.data) < more <= target  # where sizes dip it may be less
    assert found.seconds > 0


@pytest.mark.parametrize("name", ALL)
def test_a_file_holds_the_picture_in_its_own_format(picture: Image.Image, name: str) -> None:
    data = anchors.encode(picture, name, 80)
    decoded = anchors.decode(data, name)
    assert (decoded.size, decoded.mode) == (picture.size, "RGB")
    assert np.abs(np.asarray(decoded, float) - np.asarray(picture, float)).mean() < 6
    other = "jpeg" if name != "jpeg" else "webp"
    with pytest.raises(InputError, match=f"not a file of {other}"):
        anchors.decode(data, other)


@pytest.mark.parametrize("name", ALL)
def test_files_grow_with_the_quality_and_the_ends_work(picture: Image.Image, name: str) -> None:
    anchor = anchors.ANCHORS[name]
    assert (anchor.nearest(0), anchor.nearest(100)) == (anchor.lowest, anchor.highest)
    sizes = [len(anchors.encode(picture, name, anchor.nearest(q))) for q in (0, 20, 40, 60, 80, 100)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 4 * sizes[0]


@pytest.mark.parametrize("name", ALL)
def test_an_impossible_size_gives_the_smallest_file(picture: Image.Image, name: str) -> None:
    found = encode_to_size(picture, name, 50)
    anchor = anchors.ANCHORS[name]
    assert not found.fits
    assert 50 < len(found.data) <= len(anchors.encode(picture, name, anchor.lowest))
    assert found.quality - anchor.lowest <= 2 * anchor.step + 1e-9


@pytest.mark.parametrize("name", ALL)
def test_threads_change_no_file(picture: Image.Image, name: str) -> None:
    before = anchors.encode(picture, name, 40)
    set_before = anchors.limit_threads(1)
    try:
        assert anchors.encode(picture, name, 40) == before
        anchors.decode(before, name)
    finally:
        anchors.limit_threads(set_before)


def test_a_huge_target_gives_the_highest_quality(picture: Image.Image) -> None:
    assert encode_to_size(picture, "jpeg", 10**7)[1:3] == (100, True)


@pytest.mark.parametrize("name", ALL)
def test_files_carry_no_metadata_and_the_input_stays_as_it_is(picture: Image.Image, name: str) -> None:
    tagged = picture.copy()
    tagged.info.update(icc_profile=b"x" * 3000, exif=b"Exif\0\0" + b"y" * 3000, comment=b"z" * 3000, dpi=(72, 72))
    data = anchors.encode(tagged, name, 50)
    assert data == anchors.encode(picture, name, 50)
    assert "icc_profile" in tagged.info
    with Image.open(io.BytesIO(data)) as opened:
        kept = {
            key for key in ("icc_profile", "comment", "dpi", "exif") if opened.info.get(key) not in (None, b"", b" ")
        }
    assert kept == ({"icc_profile"} if name == "jxl" else set())  # the decoder makes one, of sRGB


def test_other_modes_are_encoded_as_rgb(picture: Image.Image) -> None:
    assert anchors.decode(anchors.encode(picture.convert("RGBA"), "avif", 40)).mode == "RGB"
    assert anchors.decode(anchors.encode(picture.convert("L"), "jpeg", 40)).mode == "RGB"


def test_unknown_names_and_impossible_pictures_are_refused(picture: Image.Image) -> None:
    with pytest.raises(OptionError, match="jpeg, webp, avif"):
        anchors.encode(picture, "gif", 50)
    with pytest.raises(InputError, match="WebP cannot encode a picture of 20000×1"):
        anchors.encode(Image.new("RGB", (20_000, 1)), "webp", 50)


def test_a_plugin_that_is_not_installed_is_named(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    assert "install pillow-jxl-plugin" in (anchors.missing("jxl") or "")
    assert anchors.missing("avif") is None
    assert anchors.ANCHORS["jxl"].version == "None"
    with pytest.raises(OptionError, match="JPEG XL: its plugin cannot be imported"):
        anchors.encode(picture, "jxl", 50)


def test_a_heif_library_without_encoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = pytest.importorskip("pillow_heif")
    info = {**plugin.libheif_info(), "HEIF": ""}
    monkeypatch.setattr(plugin, "libheif_info", lambda: info)
    assert "no encoder of HEVC" in (anchors.missing("heic") or "")


def test_avif_has_two_anchors_and_any_options_by_name(picture: Image.Image) -> None:
    pixels = np.array(picture)
    assert anchors.encode(picture, "avif-base", 40) == encode_avif(pixels, replace(BASE, quality=40), threads=2)
    assert anchors.encode(picture, "avif-iq-420", 40) == anchors.encode(picture, "avif", 40)  # Pillow's default
    named = anchors.find("avif-psnr-422-dq35-sh2-s8")
    assert named is not None
    assert named.avif == AvifOptions(
        tune="psnr", subsampling="4:2:2", deltaq_strength=35, sharpness=2, speed=8, quality=named.avif.quality
    )
    assert named.title == "psnr 4:2:2, deltaq 35, sharpness 2, speed 8"
    assert anchors.decode(anchors.encode(picture, "avif-psnr-422-dq35-sh2-s8", 40), "avif-base").size == picture.size
    every = [anchors.ANCHORS["avif"], anchors.ANCHORS["avif-base"], named]
    assert len({each.fingerprint for each in every}) == 3
    assert anchors.ANCHORS["avif-base"].settings["speed"] == BASE.speed
    assert [anchors.title_of(name) for name in ("avif-base", "ratevar")] == ["AVIF, base of av1", "ratevar"]


@pytest.mark.parametrize("name", ["avif-ssim-411", "avif-vmaf-444", "avif-ssim-444-", "avif-ssim-444-s6-dq20", "avifs"])
def test_other_names_are_no_options_of_avif(name: str) -> None:
    assert anchors.find(name) is None
    with pytest.raises(OptionError, match="no anchor codec is called"):
        anchors.missing(name)


def test_options_that_avif_lacks_are_refused() -> None:
    with pytest.raises(OptionError, match=r"speed: a whole number in 0\.\.10, not 11"):
        anchors.find("avif-ssim-444-s11")
