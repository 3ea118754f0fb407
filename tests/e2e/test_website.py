"""The website of `make docs`: it builds, holds together by itself, and works from disk, search included."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

for _module in ("mkdocs", "material", "mkdocstrings"):
    pytest.importorskip(_module)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")
SMALL = f"""INHERIT: {ROOT}/mkdocs.yml
hooks: [{ROOT}/tools/website.py]
nav: [index.md, contributing.md, changelog.md, security.md, commands.md, a.md]
"""


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    # not -q: warnings that are not shown are not counted
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("website")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """What a page loads, where its links lead, and the places in it that links may name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        if "src" in given:
            self.loaded.add(given["src"])
        if "href" in given:
            # what a preconnect or the like names is asked as well
            (self.links if tag == "a" else self.loaded).add(given["href"])


def test_pages_load_and_link_what_is_there(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert site / "index.html" in pages
    assert len(pages) > 15
    for path, page in pages.items():
        if path.name == "404.html":  # of servers alone: its addresses are theirs
            continue
        for address in page.loaded | page.links:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https") and address in page.links - page.loaded:
                continue
            assert parts.scheme in ("", "data"), f"{path.name}: {address}"
            assert not parts.netloc, f"{path.name}: {address}"
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {address}"
            if parts.fragment and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[target].ids, f"{path.name}: {address}"
        assert not re.search(r"@import|url\(\W?https?:", page.text), path.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\W?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_reference_comes_from_docstrings_and_help(site: Path) -> None:
    import unquant

    reference = Page(site / "reference.html")
    missing = {name for name in unquant.__all__ if not any(i.endswith(f".{name}") for i in reference.ids)}
    assert missing == {"__version__"}
    commands = Page(site / "commands.html")
    assert "met from below" in commands.text
    assert {"unquant-encode", "unquant-train-export"} <= commands.ids


def test_it_works_from_disk_without_a_network(site: Path, browser: Any, requested: Any) -> None:
    browser.get_log("browser")
    browser.get((site / "index.html").as_uri())
    browser.find_element("css selector", "input.md-search__input").send_keys("orientation")
    found: list[Any] = []
    until = time.monotonic() + 20
    while not found and time.monotonic() < until:
        time.sleep(0.1)
        found = browser.find_elements("css selector", "a.md-search-result__link")
    assert any("usage.html" in each.get_attribute("href") for each in found)
    addresses = requested()
    assert (site / "index.html").as_uri() in addresses
    assert {each for each in addresses if not each.startswith(("file:", "data:", "blob:", "about:"))} == set()
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize(
    ("links", "complaints"),
    [
        ("[c](../configs/x.toml), [d](../README.md#one-head), [e](b.svg)", []),
        ("[c](../configs/y.toml)", ["configs/y.toml"]),
        ("[c](../README.md#another), [d](b.md)", ["another", "b.md"]),
    ],
)
def test_links_of_the_repository(tmp_path: Path, links: str, complaints: list[str]) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.md").write_text(f"# {name}\n\n## One `head`\n\n[a](docs/a.md)\n", "utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(f"# A\n\n{links}\n\n|a|\n|-|\n|`x\\|y`|\n", "utf-8")
    (tmp_path / "docs" / "b.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", "utf-8")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "x.toml").write_text("rate = 4711\n", "utf-8")
    (tmp_path / "mkdocs.yml").write_text(SMALL, "utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    if complaints:
        assert done.returncode != 0
        assert [complaint for complaint in complaints if complaint not in done.stderr] == []
        return
    assert done.returncode == 0, done.stderr
    page = Page(tmp_path / "site" / "a.html")
    assert {"configs/x.toml.html", "index.html#one-head", "b.svg"} <= page.links
    assert "<code>x|y</code>" in page.text
    assert "4711" in (tmp_path / "site" / "configs" / "x.toml.html").read_text("utf-8")
    assert {"a.html"} <= Page(tmp_path / "site" / "index.html").links
