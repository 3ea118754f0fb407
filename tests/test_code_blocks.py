"""Every code block of every page is run, or said not to be and held to the options that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("sybil")

from code_blocks import blocks_of

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
