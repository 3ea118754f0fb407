"""LPIPS and DISTS: the values of their authors where the weights are installed, and their structure always."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unquant.errors import ModelMissing, OptionError, WeightsError
from unquant.perceptual import DISTS, LPIPS, VGG16, Network, load_dists, load_inception, load_lpips, load_vgg16

NETS: tuple[Network, ...] = ("alex", "vgg")


@pytest.fixture(scope="module")
def weights() -> Path:
    """The folder of metric weights, or a skip that says where it was sought."""
    given = os.environ.get("UNQUANT_METRICS")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "metrics"
    if not (folder / "reference" / "reference.json").is_file():
        pytest.skip(f"no metric weights: UNQUANT_METRICS is not set to a folder with reference/, nor is there {folder}")
    return folder


@pytest.fixture(scope="module")
def example(weights: Path) -> tuple[dict[str, list[float]], torch.Tensor, torch.Tensor]:
    """The expected values, the reference picture twice, and its two distorted versions, in [0, 1]."""

    def read(name: str) -> torch.Tensor:
        pixels = np.asarray(Image.open(weights / "reference" / name).convert("RGB"))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255

    expected = json.loads((weights / "reference" / "reference.json").read_text())
    original = read("ex_ref.png")
    return expected, torch.stack([original, original]), torch.stack([read("ex_p0.png"), read("ex_p1.png")])


@pytest.mark.parametrize("net", NETS)
def test_lpips_gives_the_reference_values(weights: Path, example, net: Network) -> None:
    expected, original, distorted = example
    distance = load_lpips(net, weights)(original, distorted)
    assert distance.tolist() == pytest.approx(expected[f"lpips_{net}"], abs=1e-4)


def test_dists_gives_the_reference_values(weights: Path, example) -> None:
    expected, original, distorted = example
    assert load_dists(weights)(original, distorted).tolist() == pytest.approx(expected["dists"], abs=1e-4)


def test_lpips_as_a_loss_in_bf16_and_channels_last_stays_close(weights: Path, example) -> None:
    _, original, distorted = example
    lpips = load_lpips("alex", weights).to(memory_format=torch.channels_last)
    exact = lpips(original, distorted)
    moved = distorted.contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        rough = lpips(original, moved)
    rough.sum().backward()
    assert rough.dtype == torch.float32
    assert rough.tolist() == pytest.approx(exact.tolist(), rel=0.05)
    assert moved.grad is not None
    assert moved.grad.isfinite().all()
    assert moved.grad.abs().sum() > 0


@pytest.fixture(scope="module", params=["alex", "vgg", "dists"])
def module(request: pytest.FixtureRequest) -> LPIPS | DISTS:
    torch.manual_seed(0)
    return DISTS() if request.param == "dists" else LPIPS(request.param)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 40, 48, generator=generator), torch.rand(2, 3, 40, 48, generator=generator)


def test_identity_is_zero_and_others_are_not(module: LPIPS | DISTS, pair) -> None:
    x, y = pair
    assert module(x, x).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert module(x, y).shape == (2,)
    assert (module(x, y) > 1e-6).all()


def test_symmetric_and_independent_of_the_batch(module: LPIPS | DISTS, pair) -> None:
    x, y = pair
    together = module(x, y)
    assert module(y, x).tolist() == pytest.approx(together.tolist(), rel=1e-4)
    assert module(x[1:], y[1:]).item() == pytest.approx(together[1].item(), rel=1e-4)


def test_gradients_reach_the_image_only(module: LPIPS | DISTS, pair) -> None:
    x, y = pair[0], pair[1].clone().requires_grad_()
    module(x, y).sum().backward()
    assert y.grad is not None
    assert y.grad.isfinite().all()
    assert y.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_flat_black_images_have_finite_gradients(module: LPIPS | DISTS) -> None:
    y = torch.zeros(1, 3, 32, 32, requires_grad=True)
    module(torch.zeros(1, 3, 32, 32), y).sum().backward()
    assert y.grad is not None
    assert y.grad.isfinite().all()


def test_features_of_a_constant_target_can_be_reused(module: LPIPS | DISTS, pair) -> None:
    x, y = pair
    target = module.extract(x)
    assert torch.equal(module.compare(target, module.extract(y)), module(x, y))


def test_wrong_sizes_are_refused(module: LPIPS | DISTS) -> None:
    with pytest.raises(OptionError, match="one size"):
        module(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 40))
    with pytest.raises(OptionError, match="at least"):
        module(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_vgg16_is_the_network_of_lpips_averaged(tmp_path: Path, pair) -> None:
    torch.manual_seed(0)
    lpips = LPIPS("vgg")
    heads = {f"lpips.lin{index}.weight": head.data for index, head in enumerate(lpips.heads)}
    save_file(lpips.features.state_dict(prefix="features.") | heads, tmp_path / "vgg16_lpips.safetensors")
    vgg, (x, y) = load_vgg16(tmp_path), pair
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(vgg.extract(x), lpips.features((x - mean) / std).mean((2, 3)))
    torch.testing.assert_close(vgg.extract(torch.cat([x, y]))[2:], vgg.extract(y))
    assert vgg.extract(x).shape == (2, 512)
    assert not any(parameter.requires_grad for parameter in vgg.parameters())


def test_vgg16_refuses_what_is_no_image_of_its_size() -> None:
    with pytest.raises(OptionError, match="at least 16×16"):
        VGG16().extract(torch.zeros(1, 3, 15, 40))


class InceptionStandIn(torch.nn.Module):
    """The interface of the TorchScript file: 2048 multiples of the mean of 8-bit pixels."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert img.dtype == torch.uint8
        assert return_features
        return img.double().mean((1, 2, 3))[:, None] * torch.arange(2048)


def test_inception_is_a_script_that_takes_bytes(tmp_path: Path) -> None:
    torch.jit.script(InceptionStandIn()).save(str(tmp_path / "inception-2015-12-05.pt"))
    inception = load_inception(tmp_path)
    x = torch.stack([torch.full((3, 20, 30), 99.6 / 255), torch.ones(3, 20, 30)])
    features = inception.extract(x)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, torch.tensor([[100.0], [255.0]]) * torch.arange(2048))
    assert (inception.name, inception.dimensions) == ("Inception", features.shape[1])


def test_what_is_no_script_is_a_weights_error(tmp_path: Path) -> None:
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"no script at all")
    with pytest.raises(WeightsError, match="inception-2015-12-05"):
        load_inception(tmp_path)


def test_missing_weights_name_the_file_and_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNQUANT_METRICS", raising=False)
    with pytest.raises(ModelMissing, match=r"alexnet_lpips\.safetensors.*UNQUANT_METRICS"):
        load_lpips()
    monkeypatch.setenv("UNQUANT_METRICS", str(tmp_path))
    with pytest.raises(ModelMissing, match=r"vgg16_lpips\.safetensors"):
        load_lpips("vgg")
    with pytest.raises(ModelMissing, match=r"dists\.safetensors"):
        load_dists()
    with pytest.raises(ModelMissing, match=r"vgg16_lpips\.safetensors"):
        load_vgg16()
    with pytest.raises(ModelMissing, match=r"inception-2015-12-05\.pt"):
        load_inception()


def test_damaged_weights_are_a_weights_error(tmp_path: Path) -> None:
    (tmp_path / "alexnet_lpips.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match="alexnet_lpips"):
        load_lpips("alex", tmp_path)
