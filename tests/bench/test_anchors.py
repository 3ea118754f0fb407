from __future__ import annotations

import io

import pytest
from PIL import Image

from unquant.bench import anchors
from unquant.errors import OptionError


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("target", [2500, 4000, 9000])
def test_the_size_is_met_from_below_and_one_step_more_is_too_large(
    picture: Image.Image, name: str, target: int
) -> None:
    found = anchors.encode_to_size(picture, name, target)
    assert found.fits
    assert 0.8 * target < len(found.data) <= target
    assert found.data == anchors.encode(picture, name, found.quality)
    assert len(anchors.encode(picture, name, found.quality + 1)) > target
    assert anchors.decode(found.data).size == picture.size


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_an_impossible_size_gives_the_smallest_file(picture: Image.Image, name: str) -> None:
    found = anchors.encode_to_size(picture, name, 50)
    assert not found.fits
    lowest = anchors.ANCHORS[name].lowest
    assert 50 < len(found.data) <= len(anchors.encode(picture, name, lowest))
    assert found.quality - lowest <= 2


def test_a_huge_target_gives_the_highest_quality(picture: Image.Image) -> None:
    assert anchors.encode_to_size(picture, "jpeg", 10**7)[1:] == (100, True)


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_files_carry_no_metadata_and_the_input_stays_as_it_is(picture: Image.Image, name: str) -> None:
    tagged = picture.copy()
    tagged.info.update(icc_profile=b"x" * 3000, exif=b"Exif\0\0" + b"y" * 3000, comment=b"z" * 3000, dpi=(72, 72))
    data = anchors.encode(tagged, name, 50)
    assert data == anchors.encode(picture, name, 50)
    assert "icc_profile" in tagged.info
    with Image.open(io.BytesIO(data)) as opened:
        assert not {"icc_profile", "exif", "comment", "dpi"} & opened.info.keys()


def test_other_modes_are_encoded_as_rgb(picture: Image.Image) -> None:
    assert anchors.decode(anchors.encode(picture.convert("RGBA"), "avif", 40)).mode == "RGB"
    assert anchors.decode(anchors.encode(picture.convert("L"), "jpeg", 40)).mode == "RGB"


def test_fractions_of_the_quality_meet_a_size_closely(picture: Image.Image) -> None:
    found = anchors.encode_to_size(picture, "webp", 1200)
    assert 1150 < len(found.data) <= 1200
    assert found.quality != round(found.quality)


def test_fit_takes_the_largest_file_where_sizes_dip() -> None:
    sizes = [10, 20, 30, 45, 38, 60, 70, 80]
    data, index = anchors.fit(lambda index: bytes(sizes[index]), 7, 40)
    assert (len(data), index) == (38, 4)


@pytest.mark.parametrize("target", range(5, 105, 5))
def test_fit_on_a_rising_ladder_is_exact(target: int) -> None:
    data, _ = anchors.fit(lambda index: bytes(10 * index + 10), 9, target)
    assert len(data) == max(10, min(100, target // 10 * 10))


def test_unknown_names_are_refused(picture: Image.Image) -> None:
    with pytest.raises(OptionError, match="jpeg, webp, avif"):
        anchors.encode(picture, "gif", 50)
