"""CLIP-IQA with a tiny random CLIP, where `transformers` is installed."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unquant.bench.metrics import Meter
from unquant.errors import WeightsError


def byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in the vocabularies of GPT-2 and CLIP."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in plain] + [chr(256 + number) for number in range(256 - len(plain))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of metric weights whose `clip` is a CLIP of pictures of 32×32, in the layout of Hugging Face."""
    transformers = pytest.importorskip("transformers")
    clip = tmp_path_factory.mktemp("metrics") / "clip"
    clip.mkdir()
    letters = byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (clip / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (clip / "merges.txt").write_text("#version: 0.2\n")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = sizes | ids | {"vocab_size": len(words)}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(clip)
    return clip.parent


def test_the_score_is_the_probability_of_the_first_prompt(folder: Path) -> None:
    """Against the steps of CLIP one by one, for a picture of the model's own size."""
    transformers = pytest.importorskip("transformers")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    score = Meter(["clip_iqa"], folder).against(image)(image)["clip_iqa"]
    model = transformers.CLIPModel.from_pretrained(folder / "clip")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "clip")
    pixels = torch.from_numpy(np.asarray(image) / 255).float()
    normal = (pixels - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )
    with torch.inference_mode():
        seen = model.visual_projection(model.vision_model(normal.permute(2, 0, 1)[None]).pooler_output)
        texts = [
            model.text_projection(model.text_model(**tokenizer(prompt, return_tensors="pt")).pooler_output)
            for prompt in ("Good photo.", "Bad photo.")
        ]
        cosines = [torch.cosine_similarity(seen, text).item() for text in texts]
    good, bad = (np.exp(model.logit_scale.exp().item() * cosine) for cosine in cosines)
    assert score == pytest.approx(good / (good + bad), rel=1e-4)


def test_the_middle_of_the_picture_counts(folder: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 90, 3), np.uint8)
    other = noise.copy()
    other[:, :20] = 0
    middle = Image.fromarray(noise[:, 29:61])
    score = Meter(["clip_iqa"], folder).against(middle)(middle)["clip_iqa"]
    for pixels in (noise, other):
        wide = Image.fromarray(pixels)
        assert Meter(["clip_iqa"], folder).against(wide)(wide)["clip_iqa"] == pytest.approx(score, rel=1e-5)
    tall = Image.fromarray(noise).resize((300, 700))
    assert 0 < Meter(["clip_iqa"], folder).against(tall)(tall)["clip_iqa"] < 1


def test_its_version_is_that_of_the_weights(folder: Path) -> None:
    versions = [Meter(["clip_iqa"], folder).versions["clip_iqa"] for _ in range(2)]
    assert versions[0] == versions[1]
    config = folder / "clip" / "config.json"
    text = config.read_text()
    config.write_text(text + "\n")
    try:
        assert Meter(["clip_iqa"], folder).versions["clip_iqa"] != versions[0]
    finally:
        config.write_text(text)


def test_damaged_weights_are_a_weights_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text("{}")
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match="clip"):
        Meter(["clip_iqa"], tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "5")
    meter = Meter(["clip_iqa"], tmp_path)
    image = Image.new("RGB", (40, 30))
    assert meter.against(image)(image) == {"clip_iqa": None}
    assert meter.versions == {}
    assert str(tmp_path / "clip" / "config.json") in meter.notes[0]
