"""The report in a browser, from disk: nothing missing, nothing fetched, switch and zoom at work.

UNQUANT_SCREENSHOTS names a folder for screenshots, in both widths and colour schemes.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from bench_rows import TARGETS, measured
from page import look

webdriver = pytest.importorskip("selenium.webdriver")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("bjontegaard")

PUBLISHED = """codec,dataset,bpp,lpips_alex,source
MS-ILLM,kodak,0.3,0.145,a
MS-ILLM,kodak,0.7,0.118,a
CDC (low trust),kodak,0.5,0.12,b
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from unquant.bench.report.page import write_report

    folder = tmp_path_factory.mktemp("browser")
    (folder / "points.csv").write_text(PUBLISHED, "utf-8")
    found = measured()
    entries = [
        {"kind": "KD-VGG16", "target": f"{t:g} bpp", "setting": setting, "value": 0.02 * f / t**0.5, "sigma": 0.002}
        for t in TARGETS
        for setting, f in (("ratevar, realism 1", 0.8), ("avif", 1.2))
    ]
    write_report(
        folder / "report.html",
        found.rows,
        original=found.original,
        picture=found.picture,
        distances={"images": 3, "patches": 24, "distances": entries},
        published=folder / "points.csv",
        environments={"place": {"cpu": "Some CPU", "threads": 2}},
    )
    return folder / "report.html"


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    look(browser, 1280, "light")
    browser.get(report.as_uri())
    return browser


def scales(browser: Any) -> list[float]:
    """How large each shown crop of the first image is, over its frame."""
    return browser.execute_script(
        "return [...document.querySelector('.view').querySelectorAll('.stage')].filter(s => s.offsetWidth)"
        ".map(s => s.firstChild.getBoundingClientRect().width / s.getBoundingClientRect().width)"
    )


def places(browser: Any) -> list[tuple[float, float]]:
    found = browser.execute_script(
        "return [...document.querySelector('.view').querySelectorAll('.stage')].filter(s => s.offsetWidth).map(s => {"
        "const a = s.getBoundingClientRect(), b = s.firstChild.getBoundingClientRect();"
        "return [(b.x - a.x) / a.width, (b.y - a.y) / a.height] })"
    )
    return [(x, y) for x, y in found]


def shown_charts(browser: Any) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll('#curves .plot')].filter(p => p.offsetHeight).map(p => p.dataset.part)"
    )


def test_nothing_is_fetched_and_nothing_fails(browser: Any, report: Path, requested: Any) -> None:
    browser.get_log("browser")
    browser.get(report.as_uri())
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    urls = requested()
    assert report.as_uri() in urls
    assert [url[:80] for url in urls if not url.startswith(("data:", report.as_uri()))] == []


def test_all_pictures_are_there(opened: Any) -> None:
    widths = opened.execute_async_script(
        "const done = arguments[0], all = [...document.images];"
        "Promise.all(all.map(i => i.decode())).then(() => done(all.map(i => i.naturalWidth)), e => done([String(e)]))"
    )
    assert len(widths) == 3 * (2 + 4 * 5)
    assert all(isinstance(width, int) and width > 0 for width in widths)


def test_the_switch_changes_the_chart(opened: Any) -> None:
    assert shown_charts(opened) == ["lpips_alex"]
    for key in ("psnr", "set0"):
        opened.find_element("css selector", f"input[name=metric][value={key}]").click()
        assert shown_charts(opened) == [key]
    # and by keyboard
    opened.find_element("css selector", "input[name=metric][value=psnr]").send_keys("\ue014")
    assert shown_charts(opened) == ["ms_ssim"]


def test_the_legend_hides_a_curve_everywhere(opened: Any) -> None:
    def visible() -> int:
        script = "return document.querySelectorAll('[data-series=AVIF]:not(.off)').length"
        return opened.execute_script(script)

    assert visible() >= 6
    button = opened.find_element("css selector", "[data-toggle=AVIF]")
    button.click()
    assert visible() == 0
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert visible() >= 6


def test_a_point_tells_what_it_is(opened: Any) -> None:
    text = opened.execute_script(
        "const use = document.querySelector('[data-part=lpips_alex] [data-series=MS-ILLM] use');"
        "use.scrollIntoView({block: 'center', behavior: 'instant'}); const b = use.getBoundingClientRect();"
        "use.closest('svg').dispatchEvent(new PointerEvent('pointermove',"
        "{clientX: b.x + b.width / 2 + 4, clientY: b.y + b.height / 2, bubbles: true}));"
        "const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent"
    )
    assert text == "MS-ILLM; 0.3 bits per pixel, LPIPS (AlexNet) 0.145; published: a"


def test_zoom_and_place_are_one_for_all_crops(opened: Any) -> None:
    assert scales(opened) == pytest.approx([1] * 6)
    opened.find_element("css selector", ".view [data-zoom='+']").click()
    zoomed = scales(opened)
    assert zoomed == pytest.approx([1.5] * 6)
    assert places(opened) == [pytest.approx((-0.25, -0.25))] * 6
    view = opened.find_element("css selector", ".view")
    view.send_keys("+", "\ue012")
    assert scales(opened) == pytest.approx([2.25] * 6)
    here = places(opened)
    assert here == [pytest.approx(here[0])] * 6
    assert here[0][0] == pytest.approx(-0.525)
    view.send_keys("0")
    assert scales(opened) == pytest.approx([1] * 6)
    # other images keep theirs
    others = opened.execute_script("return document.querySelectorAll('.view')[1].style.getPropertyValue('--zoom')")
    assert others in ("", "1")


def test_wheel_and_drag(opened: Any) -> None:
    stage = opened.find_element("css selector", ".view .original .stage")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", stage)
    actions = webdriver.ActionChains
    wheel = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(stage)
    before = opened.execute_script("return scrollY")
    actions(opened).scroll_from_origin(wheel, 0, 1).perform()
    assert scales(opened) == [1] * 6  # an image that was not chosen lets the page scroll
    actions(opened).click(stage).perform()
    actions(opened).scroll_from_origin(wheel, 0, -300).perform()
    assert scales(opened) == pytest.approx([2.718] * 6, abs=0.05)
    assert opened.execute_script("return scrollY") == pytest.approx(before, abs=2)
    start = places(opened)[0]
    actions(opened).click_and_hold(stage).move_by_offset(30, 20).release().perform()
    moved = places(opened)
    assert moved == [pytest.approx(moved[0], abs=1e-3)] * 6
    assert moved[0][0] > start[0] + 0.02
    assert moved[0][1] > start[1] + 0.02


def test_sizes_switch_and_originals_flip(opened: Any) -> None:
    def first_alt() -> str:
        script = "return [...document.querySelectorAll('.view .decoded img')].find(i => i.offsetWidth).alt"
        return opened.execute_script(script)

    assert first_alt().endswith("at 0.3 bpp")
    opened.find_element("css selector", "input[name=target][value='1.2 bpp']").click()
    assert first_alt().endswith("at 1.2 bpp")
    same = (
        "const v = document.querySelector('.view'), o = v.querySelector('.original img').src;"
        "return [...v.querySelectorAll('.decoded img')].filter(i => i.src === o).length"
    )
    flip = opened.find_element("css selector", ".view [data-flip]")
    flip.click()
    assert opened.execute_script(same) == 4 * 5
    flip.click()
    assert opened.execute_script(same) == 0


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_any_screen(browser: Any, report: Path, width: int, scheme: str) -> None:
    look(browser, width, scheme)
    browser.get(report.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper[4:-1].split(",")) > 380) is (scheme == "light")
    folder = os.environ.get("UNQUANT_SCREENSHOTS")
    if folder:
        height = browser.execute_script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        (Path(folder) / f"report-{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))
