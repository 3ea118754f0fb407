"""Every code block of every page is run, or said not to be and held to the options that there are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("sybil")

from code_blocks import blocks_of

import unquant
from unquant import pillow_plugin

ROOT = Path(__file__).parents[1]
PAGES = [page for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")) if "```" in page.read_text("utf-8")]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder, which is the current one. What blocks tell Pillow is forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    Image.init()
    for registry in ("ID", "OPEN", "SAVE", "EXTENSION", "MIME"):
        monkeypatch.setattr(Image, registry, getattr(Image, registry).copy())
    monkeypatch.setattr(pillow_plugin, "_decoding", {})
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("shipped_av1_weights", "shipped_cdc_weights")
@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.name)
def test_blocks_do_what_they_say(page: Path, folder: Path) -> None:
    blocks = blocks_of(page, folder)
    assert len(blocks) * 2 == len(re.findall(r"^[ \t>]*```", page.read_text("utf-8"), re.MULTILINE))
    for block in blocks:
        block.evaluate()


@pytest.mark.slow
@pytest.mark.usefixtures("shipped_av1_weights", "folder")
def test_the_example_of_the_package(photo: Image.Image) -> None:
    assert unquant.__doc__ is not None
    lines = re.findall(r"^ {4}(.+)", unquant.__doc__, re.MULTILINE)
    assert len(lines) > 4
    names = {"image": photo}
    exec("\n".join(lines), names)
    assert names["image"].size == photo.size
    assert names["image"] is not photo


@pytest.mark.slow
@pytest.mark.usefixtures("shipped_av1_weights")
def test_the_recipes_for_other_libraries(folder: Path) -> None:
    page = ROOT / "docs" / "how-to.md"
    start = page.read_text("utf-8").index("## Beside other libraries")
    blocks = [block for block in blocks_of(page, folder) if block.region.start > start]
    for block in blocks:
        block.evaluate()
    names = blocks[0].namespace
    picture = names["a"]
    file = unquant.encode(picture, quality=30)
    drawn = np.asarray(unquant.decode(file))

    assert names["unquant_encode"](np.asarray(picture), 30) == file
    out = np.zeros(drawn.size, np.uint8)
    assert names["unquant_decode"](bytearray(file), out=out) is out
    assert np.array_equal(out.reshape(drawn.shape), drawn)

    config = names["Unquant"](quality=30).get_config()
    assert config.pop("id") == "unquant"
    compressor = names["Unquant"].from_config(config)
    assert compressor.encode(np.asarray(picture)[np.newaxis]) == file
    assert np.array_equal(compressor.decode(file), drawn)
    assert names["pixels"].shape == names["chunk"].shape == (1, 400, 600, 3)
    assert np.abs(names["pixels"].astype(int) - names["chunk"]).mean() < 8

    model = names["UnquantModel"]("av1", quality=30)
    x = torch.from_numpy(np.stack([np.asarray(picture), np.asarray(picture.rotate(180))])).permute(0, 3, 1, 2) / 255
    coded = model.compress(x)
    assert coded["strings"][0][0] == file
    x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert x_hat.shape == x.shape
    assert np.array_equal((x_hat[0] * 255).round().permute(1, 2, 0).numpy(), drawn)
    assert (x_hat - x).square().mean() < (x_hat.flip(0) - x).square().mean() / 4
    assert names["bpp"] == 8 * len(unquant.encode(names["image"], quality=40)) / (600 * 400)


def evaluate(folder: Path, text: str) -> None:
    page = folder / "page.md"
    page.write_text(text, "utf-8")
    for block in blocks_of(page, folder):
        block.evaluate()


def test_what_runs(folder: Path) -> None:
    page = """
<!-- given: x.unq -->
<!-- not run: pip, unquant bench; hours -->
```sh
pip install 'unquant[bench]'   # it's an `extra`
unquant bench photos/ \\
  -o out
unquant info x.unq
cat x.unq | unquant info - > said
```

1. In a list:
   ```python
   assert image.size == (600, 400)
   seen = 1
   ```

```python
assert seen and Path is not None
```
"""
    with pytest.raises(NameError, match="Path"):
        evaluate(folder, page)
    assert "av1" in (folder / "said").read_text("utf-8")


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("```\nunquant models\n```", "no language"),
        ("```ruby\nputs\n```", "ruby"),
        ("<!-- not run: all; why -->\n```\nputs\n```", "no language"),
        ("```sh\nrm -r x\n```", "not marked"),
        ("```sh\nunquant info none.unq\n```", "none.unq"),
        ("```sh\ncat none.unq | unquant info -\n```", "none.unq"),
        ("```python\nassert image is None, 4\n```", "4"),
        ("<!-- not run: all; why -->\n```sh\nunquant encode a.png --qualty 3\n```", "qualty"),
        ("<!-- not run: all; why -->\n```sh\nunquant encode a.png --bpp much\n```", "much"),
        ("<!-- not run: all; why -->\n```sh\npython -m tools speeed\n```", "speeed"),
        ("<!-- not run: all; why -->\n```sh\nmake tea\n```", "no such target"),
        ("<!-- not run: all; why -->\n```sh\npip install '.[milk]'\n```", "milk"),
        ("<!-- not run: all; why -->\n```sh\nunquant train stage1 --config configs/none.toml\n```", "none.toml"),
        ("<!-- not run: all; why -->\n```sh\nrm -r x\n```", "nothing is known"),
        ("<!-- not run: all; why -->\n```python\nx\n```", "Python is run"),
        ("<!-- not run: all -->\n```sh\nmake test\n```", "why not"),
    ],
)
def test_what_is_found(block: str, complaint: str, folder: Path) -> None:
    with pytest.raises(AssertionError, match=complaint):
        evaluate(folder, f"# Page\n\n{block}\n")
