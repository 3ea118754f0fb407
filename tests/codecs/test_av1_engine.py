"""ONNX Runtime draws what torch draws in float32, within a level, whatever is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av1_files import exif_bytes, photograph, pillow_avif, pixels
from PIL import Image

from unquant.codecs.av1 import Av1Codec
from unquant.codecs.av1_decode import Av1Decoder
from unquant.codecs.av1_engine import OnnxDecoder, onnx_decoder
from unquant.codecs.onnx_file import onnx_network
from unquant.container import Limits
from unquant.diffusion import seeded_noise
from unquant.errors import CodecMissing, ImageTooLarge, ModelMissing, OptionError, WeightsError
from unquant.networks.coding import STRIDE
from unquant.nn.redraw import REDRAW_STRIDE

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def by_torch(tiny_av1_weights: Path) -> Av1Codec:
    return Av1Codec.from_file(tiny_av1_weights).make_deterministic()


@pytest.fixture(scope="module")
def by_onnx(tiny_av1_weights: Path) -> OnnxDecoder:
    return onnx_decoder(tiny_av1_weights)


@pytest.fixture(scope="module")
def coded(by_torch: Av1Codec) -> bytes:
    return by_torch.encode(photograph(150, 101), quality=15, container="avif", seed=3)


def assert_alike(one: Image.Image, other: Image.Image) -> None:
    assert (one.mode, one.size, one.info) == (other.mode, other.size, other.info)
    differences = np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16))
    assert differences.max() <= 1
    assert np.mean(differences > 0) < 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"realism": 0},
        {"realism": 0.3},
        {"realism": 1, "seed": 2**64 - 1},
        {"steps": 0},
        {"preview": True},
        {"region": (37, 20, 70, 41), "realism": 1},
        {"scale": 1 / 4},
    ],
    ids=str,
)
def test_options(by_torch: Av1Codec, by_onnx: OnnxDecoder, coded: bytes, options: dict[str, Any]) -> None:
    drawn = by_onnx.decode(coded, **options)
    assert_alike(drawn, by_torch.decode(coded, **options))
    if options == {"realism": 1, "seed": 2**64 - 1}:  # and a seed is heard
        assert np.abs(np.asarray(drawn, float) - np.asarray(by_onnx.decode(coded, realism=1), float)).max() > 4


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("tiny_av1-*.[ua][nv]*")), ids=lambda path: path.name)
def test_files(by_torch: Av1Codec, by_onnx: OnnxDecoder, path: Path) -> None:
    assert_alike(by_onnx.decode(path), by_torch.decode(path))


def test_what_lies_beside_the_picture(by_torch: Av1Codec, by_onnx: OnnxDecoder) -> None:
    data = pillow_avif(photograph(40, 24, "RGBA"), quality=40, exif=exif_bytes("somebody", orientation=6))
    drawn = by_onnx.decode(data)
    assert drawn.mode == "RGBA"
    assert drawn.getexif()
    assert_alike(drawn, by_torch.decode(data))
    lossless = pillow_avif(photograph(40, 24), quality=100, subsampling="4:4:4")
    assert_alike(by_onnx.decode(lossless), by_torch.decode(lossless))
    assert np.array_equal(np.asarray(by_onnx.decode(lossless)), pixels(lossless))


def test_windows(by_torch: Av1Codec, by_onnx: OnnxDecoder, coded: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {realism: by_torch.decode(coded, realism=realism) for realism in (0, 1)}
    monkeypatch.setattr(Av1Decoder, "window", 3)
    for realism, picture in whole.items():
        assert_alike(by_onnx.decode(coded, realism=realism), picture)


def test_the_shipped_weights(shipped_av1_weights: Path) -> None:
    codec = Av1Codec.from_file(shipped_av1_weights).make_deterministic()
    data = codec.encode(photograph(130, 90), bpp=0.4)
    drawn = onnx_decoder(shipped_av1_weights).decode(data)
    assert_alike(drawn, codec.decode(data))
    assert np.abs(np.asarray(drawn, float) - np.asarray(codec.decode(data, preview=True), float)).max() > 8


def test_noise_is_that_of_torch() -> None:
    from unquant.codecs.av1_engine import _noise
    from unquant.codecs.places import Window

    found = _noise(11, 1, 3, Window(5, 105, 6, 106))
    np.testing.assert_allclose(found, seeded_noise(11, 0, 3, 100, 100, stream=1, top=5, left=6).numpy(), rtol=1e-6)
    assert STRIDE == REDRAW_STRIDE


def test_files_and_options_that_are_refused(by_onnx: OnnxDecoder, coded: bytes) -> None:
    with pytest.raises(ModelMissing, match="needs ratevar weights"):
        by_onnx.decode(GOLDEN / "tiny-fine.unq")
    with pytest.raises(OptionError, match="steps"):
        by_onnx.decode(coded, steps=2)
    with pytest.raises(ImageTooLarge):
        by_onnx.decode(coded, max_pixels=1000)
    with pytest.raises(ImageTooLarge, match="memory"):
        by_onnx.decode(coded, limits=Limits(max_memory=1000))


def test_running_out_of_memory_has_a_name(
    tiny_av1_weights: Path, coded: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session:
        def __init__(self, message: str) -> None:
            self.message = message

        def run(self, *_: object) -> None:
            raise RuntimeError(self.message)

    decoder = OnnxDecoder(onnx_network(tiny_av1_weights), "tiny")
    monkeypatch.setattr(decoder, "_session", Session("BFCArena::AllocateRawInternal Failed to allocate memory"))
    with pytest.raises(ImageTooLarge, match="not enough memory"):
        decoder.decode(coded)
    monkeypatch.setattr(decoder, "_session", Session("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        decoder.decode(coded)


def test_without_the_runtime_it_says_what_to_install(tiny_av1_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = onnx_network(tiny_av1_weights)
    with pytest.raises(WeightsError, match="refuses"):
        OnnxDecoder(network._replace(data=network.data[:100]), "tiny")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CodecMissing, match=r"unquant\[onnx\]"):
        OnnxDecoder(network, "tiny")
