"""Full-reference perceptual distances as torch modules: LPIPS v0.1 (AlexNet, VGG16) and DISTS; and the features of VGG16
and of Inception for distances between sets of pictures.

Both distances compare features of an ImageNet network and are differentiable: they serve as losses and as measurements.

    x, y ──►┤features├──► taps ──►┤normalise, weigh, compare, pool├──► (b,) distance, 0 for equal images

LPIPS: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924).
DISTS: Ding et al. 2020, "Image Quality Assessment: Unifying Structure and Texture Similarity" (arXiv 2004.07728).

The weights are not part of the package. They are safetensors files in one folder, given by an argument or by the
environment variable `UNQUANT_METRICS`: `alexnet_lpips`, `vgg16_lpips` (convolutions under torchvision's names
`features.N.*`, linear heads under `lpips.linN.weight`) and `dists` (`alpha`, `beta`; needs `vgg16_lpips` as well).
Inception is the TorchScript file `inception-2015-12-05.pt` that NVIDIA publishes with StyleGAN2-ADA: a program that runs
as it is loaded. The convolutions run in the caller's precision (autocast, channels_last); everything after them in float32.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unquant.errors import ModelMissing, OptionError, WeightsError
from unquant.shapes import Image

__all__ = [
    "DIRECTORY_VARIABLE",
    "DISTS",
    "LPIPS",
    "VGG16",
    "Inception",
    "Network",
    "find_weights",
    "load_dists",
    "load_inception",
    "load_lpips",
    "load_vgg16",
]

Network = Literal["alex", "vgg"]

DIRECTORY_VARIABLE = "UNQUANT_METRICS"
LPIPS_FILES: dict[Network, str] = {"alex": "alexnet_lpips.safetensors", "vgg": "vgg16_lpips.safetensors"}
DISTS_FILE = "dists.safetensors"
INCEPTION_FILE = "inception-2015-12-05.pt"

# mean and standard deviation of ImageNet in [0, 1], and the same as LPIPS rounds them for inputs in [-1, 1]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)

VGG_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DISTS_CHANNELS = (3, 64, 128, 256, 512, 512)


class L2Pool(nn.Module):
    """Stride-2 pooling of DISTS: root of the Hann-weighted mean of squares over 3×3 (arXiv 2004.07728, eq. 3).

    channels: of the input. Input (b, c, h, w), output (b, c, ceil(h/2), ceil(w/2)).
    """

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        window = torch.tensor([0.25, 0.5, 0.25])
        kernel = torch.outer(window, window).expand(channels, 1, 3, 3).clone()
        self.register_buffer("weight", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = nn.functional.conv2d(x.square(), self.weight.to(x.dtype), stride=2, padding=1, groups=x.shape[1])
        return (mean + 1e-12).sqrt()


def _alexnet() -> tuple[nn.Sequential, tuple[int, ...]]:
    """The convolutional part of AlexNet in torchvision's layout, and the indices of the layers that LPIPS taps."""
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
    )
    return layers, (1, 4, 7, 9, 11)


def _vgg16(pool: Literal["max", "l2"]) -> tuple[nn.Sequential, tuple[int, ...]]:
    """The convolutional part of VGG16 in torchvision's layout up to relu5_3, and the indices of relu1_2 … relu5_3."""
    layers: list[nn.Module] = []
    taps: list[int] = []
    channels = 3
    for stage in VGG_STAGES:
        if taps:
            layers.append(nn.MaxPool2d(2) if pool == "max" else L2Pool(channels))
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        taps.append(len(layers) - 1)
    return nn.Sequential(*layers), tuple(taps)


def _tapped(layers: nn.Sequential, taps: Sequence[int], x: Tensor) -> list[Tensor]:
    """The outputs of the layers numbered `taps` (ascending)."""
    outputs: list[Tensor] = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in taps:
            outputs.append(x)
    return outputs


def _check(x: Tensor, y: Tensor, smallest: int) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or x.shape[-2:] != y.shape[-2:] or y.ndim != 4:
        raise OptionError(f"two image batches (b, 3, h, w) of one size expected, got {[*x.shape]} and {[*y.shape]}")
    if min(x.shape[-2:]) < smallest:
        raise OptionError(f"images of at least {smallest}×{smallest} expected, got {x.shape[-1]}×{x.shape[-2]}")


class LPIPS(nn.Module):
    """LPIPS v0.1 with learnt linear heads (arXiv 1801.03924, eq. 1).

    net: the feature network. A new module has random weights: use `load_lpips`. No parameter requires a gradient.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Network = "alex") -> None:
        super().__init__()
        self.net: Network = net
        self.features, self.taps = _alexnet() if net == "alex" else _vgg16("max")
        convolutions = [cast(nn.Conv2d, self.features[tap - 1]) for tap in self.taps]
        self.heads = nn.ParameterList(torch.rand(1, layer.out_channels, 1, 1) for layer in convolutions)
        self.smallest = 31 if net == "alex" else 16
        self.register_buffer("shift", torch.tensor(LPIPS_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(LPIPS_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def extract(self, x: Image) -> list[Tensor]:
        """Unit-length features of x in [0, 1] at the five taps, float32; the input of `compare`."""
        normalised = (x * 2 - 1 - self.shift) / self.scale
        features = [tap.float() for tap in _tapped(self.features, self.taps, normalised)]
        return [tap * torch.rsqrt(tap.square().sum(1, keepdim=True) + 1e-12) for tap in features]

    def compare(self, x_features: Sequence[Tensor], y_features: Sequence[Tensor]) -> Tensor:
        """The distance (b,) of two outputs of `extract`, so that a constant target is extracted only once."""
        total = x_features[0].new_zeros(x_features[0].shape[0])
        for head, a, b in zip(self.heads, x_features, y_features, strict=True):
            total = total + ((a - b).square() * head).sum(1).mean((1, 2))
        return total

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Per-image distance (b,), float32, ≥ 0.

        x, y: (b, 3, h, w) in [0, 1], at least 31×31 (AlexNet) or 16×16 (VGG16). Raises OptionError otherwise.
        """
        _check(x, y, self.smallest)
        return self.compare(self.extract(x), self.extract(y))


class DISTS(nn.Module):
    """DISTS: structure and texture similarity of VGG16 features and the image itself (arXiv 2004.07728, eq. 8).

    A new module has random weights: use `load_dists`. No parameter requires a gradient. Images are compared at full
    resolution, as given.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features, self.taps = _vgg16("l2")
        self.alpha = nn.Parameter(torch.rand(1, sum(DISTS_CHANNELS), 1, 1))
        self.beta = nn.Parameter(torch.rand(1, sum(DISTS_CHANNELS), 1, 1))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def extract(self, x: Image) -> list[Tensor]:
        """x itself in [0, 1] and the five taps, float32; the input of `compare`."""
        return [x.float(), *(tap.float() for tap in _tapped(self.features, self.taps, (x - self.mean) / self.std))]

    def compare(self, x_features: Sequence[Tensor], y_features: Sequence[Tensor]) -> Tensor:
        """The distance (b,) of two outputs of `extract`."""
        total = self.alpha.sum() + self.beta.sum()
        similarity = x_features[0].new_zeros(x_features[0].shape[0])
        alphas, betas = self.alpha.split(DISTS_CHANNELS, 1), self.beta.split(DISTS_CHANNELS, 1)
        for a, b, alpha, beta in zip(x_features, y_features, alphas, betas, strict=True):
            a_mean, b_mean = a.mean((2, 3), keepdim=True), b.mean((2, 3), keepdim=True)
            a_rest, b_rest = a - a_mean, b - b_mean
            a_var, b_var = a_rest.square().mean((2, 3), keepdim=True), b_rest.square().mean((2, 3), keepdim=True)
            covariance = (a_rest * b_rest).mean((2, 3), keepdim=True)
            texture = (2 * a_mean * b_mean + 1e-6) / (a_mean.square() + b_mean.square() + 1e-6)
            structure = (2 * covariance + 1e-6) / (a_var + b_var + 1e-6)
            similarity = similarity + ((alpha * texture + beta * structure) / total).sum((1, 2, 3))
        return 1 - similarity

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Per-image distance (b,), float32. x, y: (b, 3, h, w) in [0, 1], at least 16×16; else OptionError."""
        _check(x, y, 16)
        return self.compare(self.extract(x), self.extract(y))


class VGG16(nn.Module):
    """VGG16's convolutions up to relu5_3, averaged over the image: what a picture shows and in which style, not where.

    Simonyan and Zisserman 2015 (arXiv 1409.1556). A new module has random weights: use `load_vgg16`. No parameter
    requires a gradient. name, dimensions: of the features.
    """

    name: ClassVar[str] = "VGG16"
    dimensions: ClassVar[int] = 512
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features, _ = _vgg16("max")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def extract(self, x: Image) -> Float[Tensor, "b 512"]:
        """The 512 channels of relu5_3 of x in [0, 1], averaged over the image, float32, ≥ 0.

        x: (b, 3, h, w), at least 16×16; else OptionError.
        """
        _check(x, x, 16)
        return self.features((x - self.mean) / self.std).float().mean((2, 3))


class Inception(nn.Module):
    """Inception v3 of 2015 up to its last pooling, as FID and KID are defined with it (Heusel et al. 2017).

    network: takes (b, 3, h, w) uint8 and `return_features=True`, and resizes and normalises by itself. name, dimensions:
    of the features.
    """

    name: ClassVar[str] = "Inception"
    dimensions: ClassVar[int] = 2048

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def extract(self, x: Image) -> Float[Tensor, "b 2048"]:
        """The 2048 features, float32, of x: (b, 3, h, w) in [0, 1], which is rounded to 8 bits."""
        return self.network((x * 255).round().to(torch.uint8), return_features=True).float()


def find_weights(name: str, directory: Path | None = None) -> Path:
    """The path of the weights file `name` in `directory`, or else in the folder named by `UNQUANT_METRICS`.

    Raises ModelMissing, naming the file and how to set the folder.
    """
    given = os.environ.get(DIRECTORY_VARIABLE)
    folder = directory if directory is not None else Path(given) if given else None
    hint = f"set {DIRECTORY_VARIABLE} (or the directory given) to the folder that holds the metric weights"
    if folder is None:
        raise ModelMissing(f"{name} is needed and no folder of metric weights is set; {hint}")
    path = folder.expanduser() / name
    if not path.is_file():
        raise ModelMissing(f"{path} is needed and does not exist; {hint}")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: {error}") from error


def _convolutions(path: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in _read(path).items() if name.startswith("features.")}


def _fill(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit: {error}") from error


def load_lpips(net: Network = "alex", directory: Path | None = None) -> LPIPS:
    """LPIPS v0.1 with its weights, on the CPU, in float32.

    directory: the folder of `alexnet_lpips.safetensors` or `vgg16_lpips.safetensors`; None takes the environment
    variable `UNQUANT_METRICS`. Raises ModelMissing, WeightsError.
    """
    path = find_weights(LPIPS_FILES[net], directory)
    state = {
        name.replace("lpips.lin", "heads.").replace(".weight", "") if name.startswith("lpips.") else name: tensor
        for name, tensor in _read(path).items()
    }
    module = LPIPS(net)
    _fill(module, state, path)
    return module


def load_vgg16(directory: Path | None = None) -> VGG16:
    """VGG16's convolutions with their weights, on the CPU, in float32.

    directory: the folder of `vgg16_lpips.safetensors`; None takes the environment variable `UNQUANT_METRICS`. Raises
    ModelMissing, WeightsError.
    """
    path = find_weights(LPIPS_FILES["vgg"], directory)
    module = VGG16()
    _fill(module, _convolutions(path), path)
    return module


def load_inception(directory: Path | None = None) -> Inception:
    """Inception with its weights, on the CPU.

    directory: the folder of `inception-2015-12-05.pt`; None takes the environment variable `UNQUANT_METRICS`. Raises
    ModelMissing, WeightsError.
    """
    path = find_weights(INCEPTION_FILE, directory)
    try:
        return Inception(cast(nn.Module, torch.jit.load(path, map_location="cpu")))
    except (RuntimeError, ValueError, OSError) as error:
        raise WeightsError(f"{path}: no TorchScript program: {error}") from error


def load_dists(directory: Path | None = None) -> DISTS:
    """DISTS with its weights, on the CPU, in float32.

    directory: the folder of `dists.safetensors` and `vgg16_lpips.safetensors`; None takes the environment variable
    `UNQUANT_METRICS`. Raises ModelMissing, WeightsError.
    """
    path, features = find_weights(DISTS_FILE, directory), find_weights(LPIPS_FILES["vgg"], directory)
    module = DISTS()
    _fill(module, _convolutions(features) | _read(path), path)
    return module
