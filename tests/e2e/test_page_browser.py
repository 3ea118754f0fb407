"""The page of `unquant demo --serve` in a browser: there and back, every control, keyboard, small screens, accessibility.

UNQUANT_SCREENSHOTS names a folder for screenshots; with docs it makes docs/page.jpg anew:

    UNQUANT_SCREENSHOTS=docs pytest tests/e2e/test_page_browser.py -k screenshot
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page import GOLDEN, Server, look, served
from PIL import Image

from unquant import codecs

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = pytest.mark.slow

AXE = "4.14.1"
WAIT_S = 120
READY = (
    "const right = document.getElementById('right-image');"
    "return document.body.getAttribute('aria-busy') === 'false' && !right.hidden && right.complete"
    " && right.naturalWidth > 0 && [right.src, document.getElementById('download-file').textContent,"
    " document.getElementById('download-png').href, document.getElementById('left-image').src]"
)


def until(found: Callable[[], Any]) -> Any:
    """What `found` gives as soon as that is true."""
    end = time.monotonic() + WAIT_S
    while not (value := found()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return value


class Page:
    """The page with a picture that is drawn."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def __getitem__(self, name: str) -> Any:
        return self.browser.find_element("id", name)

    def text(self, name: str) -> str:
        return self[name].get_property("textContent")

    def ready(self) -> tuple[str, ...]:
        """Waits until all is drawn; gives what is shown right, to be downloaded twice, and left."""
        return tuple(until(lambda: self.browser.execute_script(READY)))

    def changed(self, before: tuple[str, ...], which: int = 0) -> tuple[str, ...]:
        """Waits until something else than before is shown."""
        return until(lambda: (now := self.ready())[which] != before[which] and now)

    def choose(self, group: str, value: str) -> None:
        self.browser.find_element("css selector", f"input[name={group}][value={value}]").click()

    def keys(self, *keys: str) -> None:
        """Typed at whatever has the focus."""
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def focused(self) -> str:
        return self.browser.execute_script(
            "const e = document.activeElement; return e.id || e.name || e.dataset.key || ''"
        )

    def tab_to(self, name: str, key: str = Keys.TAB) -> None:
        """By the keyboard alone."""
        passed: list[str] = []
        while self.focused() != name:
            self.keys(key)
            passed.append(self.focused())
            assert len(passed) < 60, f"{name} is not reached: {passed}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served("-m", "tiny_av1", "--bpp", "1") as found:
        yield found


@pytest.fixture
def small(tmp_path: Path, photo: Image.Image) -> Path:
    photo.crop((200, 100, 360, 220)).save(tmp_path / "cup.png")
    return tmp_path / "cup.png"


@pytest.fixture
def downloads(browser: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "downloads"
    folder.mkdir()
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    return folder


@pytest.fixture
def page(browser: Any, server: Server, small: Path) -> Page:
    """The page at 1280 pixels with a small photograph opened in it."""
    look(browser, 1280, "light")
    browser.get(server.url)
    found = Page(browser)
    before = found.ready()
    found["photograph-input"].send_keys(str(small))
    found.changed(before)
    return found


@pytest.fixture(scope="session")
def axe(pytestconfig: pytest.Config) -> str:
    """axe-core's script, by npm; kept in the cache of pytest."""
    folder = pytestconfig.cache.mkdir("axe-core") / AXE
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    npm = shutil.which("npm")
    if not script.is_file():
        if npm is None:
            pytest.skip("npm is not installed, which brings axe-core")
        command = [npm, "install", "--silent", "--no-save", "--prefix", str(folder), f"axe-core@{AXE}"]
        if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode:
            pytest.skip("axe-core cannot be fetched")
    return script.read_text("utf-8")


def downloaded(page: Page, folder: Path, link: str) -> Path:
    name = page.text(link)
    (folder / name).unlink(missing_ok=True)
    page[link].click()
    until((folder / name).is_file)
    until(lambda: not list(folder.glob("*.crdownload")))
    return folder / name


def test_the_first_paint_comes_soon(browser: Any) -> None:
    look(browser, 1280, "light")
    script = (
        "const all = performance.getEntriesByName('first-contentful-paint');"
        "return all.length ? performance.timeOrigin + all[0].startTime : 0"
    )
    seconds: list[float] = []
    while len(seconds) < 3 and min(seconds, default=9) > 3:  # whatever else the machine does only adds to it
        start = time.time()
        with served() as fresh:
            browser.get(fresh.url)
            seconds.append(until(lambda: browser.execute_script(script)) / 1000 - start)
    print(f"first paint after {seconds} s")
    if min(seconds) > 3 and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip("this machine is too busy to tell")
    assert min(seconds) <= 3


def test_there_and_back_with_every_control(page: Page, requested: Any, server: Server, downloads: Path) -> None:
    page.browser.get_log("browser")
    shown = page.ready()
    assert shown[1] == "cup.unq"
    for name, keys in (
        ("rate", Keys.ARROW_RIGHT * 20),
        ("effort", Keys.ARROW_LEFT * 3),
        ("realism", Keys.ARROW_LEFT * 8),
        ("seed", Keys.BACKSPACE + "7" + Keys.ENTER),
        ("new-seed", Keys.ENTER),
        ("steps", "0" + Keys.ENTER),
    ):
        page[name].send_keys(keys)
        shown = page.changed(shown)
    page["steps"].send_keys(Keys.BACKSPACE + Keys.ENTER)
    shown = page.changed(shown)
    page["bpp"].clear()
    page["bpp"].send_keys("3" + Keys.ENTER)
    shown = page.changed(shown)
    assert page.text("rate-bytes") == "at most 7,200 bytes"
    assert 5000 < int(page.text("rows").split("cup.unq")[1].split(".")[0][:-1].replace(",", "")) <= 7200
    page.choose("container", "avif")
    shown = page.changed(shown, 1)
    assert shown[1] == "cup.avif"
    with Image.open(downloaded(page, downloads, "download-file")) as image:
        assert (image.format, image.size) == ("AVIF", (160, 120))
    page["model"].send_keys("tiny_cdc")
    shown = page.changed(shown)
    assert shown[1] == "cup.unq"
    assert not page["effort"].is_enabled()

    for codec in ("avif", "jpeg", "preview"):
        page.choose("left", codec)
        shown = page.changed(shown, 3)
    assert "AVIF" in page.text("rows")
    assert "JPEG" in page.text("rows")
    page.choose("left", "original")
    page.changed(shown, 3)

    assert not page["map-image"].is_displayed()
    page["map"].click()
    until(page["map-image"].is_displayed)
    assert page["map-hint"].is_displayed()
    page["map"].click()
    assert not page["map-image"].is_displayed()

    file, picture = (downloaded(page, downloads, f"download-{kind}") for kind in ("file", "png"))
    drawn = np.asarray(Image.open(picture))
    given = {"realism": float(page.text("realism-value")), "seed": int(page["seed"].get_property("value"))}
    assert np.array_equal(drawn, np.asarray(codecs.decode(file, model=str(GOLDEN / "tiny_cdc.safetensors"), **given)))

    shown = page.ready()
    page["file-input"].send_keys(str(file))
    shown = page.changed(shown)
    assert not page["model"].is_enabled()
    assert page.text("realism-value") == "0.50"  # what these weights draw if nobody asks
    page["seed"].send_keys("1" + Keys.ENTER)
    page.changed(shown)

    assert [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    urls = requested()
    assert {f"{server.url}api/{path}" for path in ("encode", "decode", "compare", "files?name=cup.unq")} <= urls
    assert [url for url in urls if not url.startswith((server.url, "data:"))] == []


DROP = (
    "const files = new DataTransfer(); files.items.add(new File([arguments[1]], arguments[0]));"
    "for (const type of ['dragenter', 'dragover', 'drop'])"
    " document.body.dispatchEvent(new DragEvent(type, {dataTransfer: files, bubbles: true, cancelable: true}))"
)


def test_what_is_dropped_is_opened(page: Page) -> None:
    def error(name: str) -> str:
        page.browser.execute_script(DROP, name, "no picture")
        until(lambda: page.text("error").startswith(f"{name}: "))
        return page.text("error")

    assert "cannot be read" in error("words.jpg")
    for name in ("words.unq", "words.AVIF"):
        assert "cannot be read" not in error(name)  # by a decoder's words
    assert not page.browser.execute_script("return document.body.classList.contains('dropping')")


def test_errors_are_words_and_the_page_goes_on(page: Page, tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("no picture")
    page["photograph-input"].send_keys(str(tmp_path / "words.jpg"))
    until(page["error"].is_displayed)
    assert page.text("error").startswith("words.jpg: ")
    page["bpp"].clear()
    page["bpp"].send_keys("0.01" + Keys.ENTER)
    until(lambda: "smallest" in page.text("error"))
    assert "Traceback" not in page.text("error")
    page["bpp"].clear()
    page["bpp"].send_keys("2" + Keys.ENTER)
    page.ready()
    until(lambda: not page["error"].is_displayed())


def test_the_divider_and_the_zoom(page: Page) -> None:
    def style(name: str) -> str:
        return page.browser.execute_script(f"return document.getElementById('stage').style.getPropertyValue('{name}')")

    stage = page["stage"]
    actions = webdriver.ActionChains
    actions(page.browser).move_to_element(stage).click_and_hold().move_by_offset(-200, 0).release().perform()
    assert 10 < float(style("--split")[:-1]) < 45
    assert page["split"].get_property("value") == style("--split")[:-1]
    page.keys("1")
    assert page.text("zoom") == "100%" or float(style("--zoom")) == 1  # it is shown larger than it is
    page.keys("+", "+")
    assert float(style("--zoom")) == pytest.approx(2.25)
    where = style("--x")
    page.keys(Keys.ARROW_RIGHT)
    assert float(style("--x")[:-1]) == pytest.approx(float(where[:-1]) - 10)
    actions(page.browser).move_to_element_with_offset(stage, 100, 60).click_and_hold().move_by_offset(
        30, 20
    ).release().perform()
    assert float(style("--x")[:-1]) > float(where[:-1]) - 10
    assert page.browser.execute_script("return document.getElementById('stage').classList.contains('pixels')")
    page.keys("0")
    assert float(style("--zoom")) == 1


def test_the_keyboard_is_enough(page: Page, downloads: Path) -> None:
    page.browser.execute_script("document.activeElement.blur()")
    shown = page.ready()
    order = []
    while not order or order[-1] != "new-seed":
        page.keys(Keys.TAB)
        order.append(page.focused())
        assert len(order) < 60
    assert order[:4] == ["photograph-input", "bundled", "file-input", "left"]
    controls = ("map", "stage", "split", "download-file", "download-png", "model", "rate", "bpp", "effort", "container")
    controls += ("realism", "steps", "seed", "new-seed")
    assert [name for name in order if name in controls] == list(controls)
    rings = page.browser.execute_script(
        "return getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth"
    )
    assert rings == "solid2px"

    page.tab_to("realism", Keys.SHIFT + Keys.TAB)
    page.keys(Keys.ARROW_LEFT)
    shown = page.changed(shown)
    page.tab_to("model", Keys.SHIFT + Keys.TAB)
    page.keys("tiny_cdc")
    shown = page.changed(shown)
    page.tab_to("download-png", Keys.SHIFT + Keys.TAB)
    page.keys(Keys.ENTER)
    until((downloads / "cup.png").is_file)
    page.tab_to("split", Keys.SHIFT + Keys.TAB)
    page.keys(Keys.HOME)
    assert page["split"].get_property("value") == "0"
    page.tab_to("stage", Keys.SHIFT + Keys.TAB)
    page.keys("+")
    assert page.browser.execute_script("return document.getElementById('stage').classList.contains('zoomed')")
    page.tab_to("left", Keys.SHIFT + Keys.TAB)
    page.keys(Keys.ARROW_RIGHT)
    shown = page.changed(shown, 3)
    assert "AVIF" in page.text("left-name")
    page.tab_to("bundled", Keys.SHIFT + Keys.TAB)
    page.keys(Keys.ENTER)
    assert page.changed(shown)[1] == "coffee.unq"


def test_it_fits_and_everyone_can_use_it(page: Page, axe: str) -> None:
    beyond = (
        "return [...document.querySelectorAll('button, .button, input, select, table, #stage, .tag')].filter(e => {"
        "const box = e.getBoundingClientRect(); return box.width && (box.left < 0 || box.right > innerWidth) })"
        ".map(e => e.outerHTML)"
    )
    page.browser.execute_script(axe)
    for width, scheme in product((1280, 400), ("light", "dark")):
        look(page.browser, width, scheme)
        paper = page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(int(part) for part in paper[4:-1].split(",")) > 380) is (scheme == "light")
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert page.browser.execute_script(beyond) == []
        found = page.browser.execute_async_script("axe.run().then(arguments[0], e => arguments[0]({error: String(e)}))")
        violations = [
            (each["impact"], each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]
        ]
        assert violations == [], json.dumps(violations, indent=1)
        assert len(found["passes"]) > 20


@pytest.mark.skipif("UNQUANT_SCREENSHOTS" not in os.environ, reason="UNQUANT_SCREENSHOTS names no folder")
def test_screenshots(browser: Any) -> None:
    folder = Path(os.environ["UNQUANT_SCREENSHOTS"])
    with served() as shipped:
        for name, width in (("page", 1280), ("page-small", 400)):
            if width == 400 and folder.name == "docs":
                continue
            look(browser, width, "light", 2400)
            browser.get(shipped.url)
            page = Page(browser)
            shown = page.ready()
            page.choose("left", "avif")
            page.changed(shown, 3)
            if folder.name != "docs":
                page["map"].click()
                until(page["map-image"].is_displayed)
            # without the seconds of whatever machine this is
            height = browser.execute_script(
                "return document.querySelector('table').getBoundingClientRect().top + scrollY"
            )
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            options = {"captureBeyondViewport": True, "clip": clip, "format": "jpeg", "quality": 80}
            shot = browser.execute_cdp_cmd("Page.captureScreenshot", options)
            (folder / f"{name}.jpg").write_bytes(base64.b64decode(shot["data"]))
