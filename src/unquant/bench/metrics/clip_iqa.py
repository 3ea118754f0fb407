"""Quality without a reference: CLIP-IQA (Wang et al. 2023, arXiv 2207.12396).

The probability that CLIP gives "Good photo." over "Bad photo." for a picture. Its authors take a ResNet without
positions at full resolution; the models here, in the layout of Hugging Face, are transformers, and a picture comes to
them as CLIP's own preparation makes it: the shorter side resized to the model's 224 or so, and the middle cropped. So
values depend on the model, and artefacts of a pixel or two hardly count.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unquant.bench.metrics.base import Metric, Score, library_version, to_tensor, weights_version
from unquant.errors import ModelMissing, WeightsError
from unquant.perceptual import find_weights

__all__ = ["load"]

FOLDER = "clip"
FILES = ("config.json", "model.safetensors")
PROMPTS = ["Good photo.", "Bad photo."]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _prepared(image: Image.Image, size: int) -> Tensor:
    """The middle size×size of the picture whose shorter side is resized to size; (1, 3, size, size), normalised."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = to_tensor(resized.crop((left, top, left + size, top + size)))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def load(directory: Path | None = None) -> Metric:
    """In [0, 1]; whatever the reference. directory: its folder `clip` has CLIP with its tokenizer.

    Raises ImportError without `transformers`, ModelMissing without the files and WeightsError if they are damaged.
    """
    # not in any extra: it is large, and of no use without the weights. No types, so imported by name
    library_version("transformers", "transformers")
    try:
        files = [find_weights(f"{FOLDER}/{name}", directory) for name in FILES]
    except ModelMissing as error:
        raise ModelMissing(f"{error}; its folder {FOLDER} holds a CLIP in the layout of Hugging Face") from error
    transformers: Any = import_module("transformers")
    folder = str(files[0].parent)
    try:
        model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        prompts = tokenizer(PROMPTS, padding=True, return_tensors="pt")
        size = int(model.config.vision_config.image_size)
    except Exception as error:  # of many kinds, the safetensors reader's among them
        raise WeightsError(f"{folder} cannot be read as CLIP with its tokenizer: {error}") from error

    @torch.inference_mode()
    def score(image: Image.Image) -> float:
        logits: Tensor = model(**prompts, pixel_values=_prepared(image.convert("RGB"), size)).logits_per_image
        return float(logits.softmax(-1)[0, 0])

    def against(_: Image.Image) -> Score:
        return score

    return Metric(weights_version(*files), against)
