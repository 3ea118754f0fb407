"""The page of `make web` in a browser: from disk, nothing fetched, the same picture as Python's. Its parts in node alone."""

from __future__ import annotations

import base64
import functools
import io
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from av1_files import deep, exif_bytes, first_item, grid, heif, photograph, pillow_avif, still
from PIL import Image

import unquant
from unquant.codecs.av1_open import open_avif
from unquant.container.avif import parse_avif
from unquant.diffusion import seeded_noise
from unquant.errors import UnquantError

WEB = Path(__file__).parents[2] / "web"
NODE, NPM = shutil.which("node"), shutil.which("npm")
if NODE is None or not WEB.is_dir():
    pytest.skip("needs node, and the folder web", allow_module_level=True)

BUILD_SECONDS = 300
DRAW_SECONDS = 300


def node(script: str, *arguments: object) -> Any:
    """What a script prints, from JSON."""
    assert NODE is not None
    command = [NODE, "--input-type=module", "-e", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, cwd=WEB, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


# --- in node -------------------------------------------------------------------------------------------------------------

READ = """
import { readFileSync } from "node:fs";
import { readAvif } from "./src/avif.js";
const found = process.argv.slice(1).map((path) => {
  try { return readAvif(new Uint8Array(readFileSync(path))); } catch (error) { return { error: error.message }; }
});
console.log(JSON.stringify(found, (key, value) => typeof value === "bigint" ? String(value) : value));
"""
CUTS = """
import { readFileSync } from "node:fs";
import { readAvif } from "./src/avif.js";
const data = new Uint8Array(readFileSync(process.argv[1]));
let whole = 0;
for (let end = 0; end < data.length; end++) {
  try { readAvif(data.subarray(0, end)); whole++; } catch (error) { if (error.constructor !== Error) throw error; }
}
for (let at = 0; at < data.length; at++) {
  const flipped = data.slice();
  flipped[at] ^= 1 << at % 8;
  try { readAvif(flipped); } catch (error) { if (!(error instanceof Error)) throw error; }
}
console.log(whole);
"""
NOISE = """
import { seededNoise } from "./src/noise.js";
const found = [0n, 7n, 2n ** 64n - 1n].map((seed) => [...seededNoise(seed, 1, 3, 4, 50, 5, 6)]);
console.log(JSON.stringify(found));
"""


def files() -> dict[str, bytes]:
    """AVIF files of many kinds by a name."""
    photo = photograph(80, 60)
    found = {
        f"{tune}-{chroma}-{quality}": pillow_avif(
            photo, subsampling=chroma, quality=quality, advanced={"tune": tune, "deltaq-mode": mode}
        )
        for tune, mode in (("iq", "6"), ("ssim", "0"))
        for chroma in ("4:2:0", "4:2:2", "4:4:4")
        for quality in (5, 60)
    }
    found["lossless"] = pillow_avif(photo, quality=100, subsampling="4:4:4")
    found["grey"] = pillow_avif(photo.convert("L"), subsampling="4:0:0")
    found["alpha"] = pillow_avif(photograph(80, 60, "RGBA"))
    found["tiles"] = pillow_avif(photograph(640, 520), tile_rows=1, tile_cols=1)
    found["superblocks"] = pillow_avif(photo, advanced={"sb-size": "64"})
    for orientation in range(2, 9):
        found[f"turned {orientation}"] = pillow_avif(photo, exif=exif_bytes(orientation=orientation))
    coded = first_item(found["alpha"])
    item = [(b"av01", coded, still(coded))]
    for iloc in range(3):
        for wide in (False, True):
            found[f"boxes {iloc} {wide}"] = heif(item, iloc=iloc, wide=wide, pieces=2)
    found["idat"] = heif(item, iloc=1, idat=True)
    found["data first"] = heif(item, data_first=True, sizes="large")
    found["open"] = heif(item, sizes="open")
    found["delimiter"] = heif([(b"av01", b"\x12\0" + coded, still(coded))])
    found["grid"] = grid()
    stream = io.BytesIO()
    photo.save(stream, "AVIF", save_all=True, append_images=[photo.rotate(9)], speed=9)
    film = first_item(stream.getvalue())
    found["full header"] = heif([(b"av01", film, still(film))])
    found["realism, seed"] = unquant.encode(photo, container="avif", realism=0.25, seed=2**63 + 5, quality=20)
    found["10 bits"] = heif([(b"av01", deep(), still(deep()))])
    found["PQ"] = heif([(b"av01", deep(0, 16), still(deep(0, 16)))])
    found["none"] = b"\0\0\0\x18ftypheic" + bytes(16)
    return found


def test_headers_are_read_as_by_python(tmp_path: Path) -> None:
    made = files()
    for number, data in enumerate(made.values()):
        (tmp_path / f"{number:03d}.avif").write_bytes(data)
    paths = sorted(tmp_path.iterdir())
    refused = 0
    for (name, data), found in zip(made.items(), node(READ, *paths), strict=True):
        try:
            file, opened = parse_avif(data), open_avif(data)
        except UnquantError:
            assert "error" in found, name
            refused += 1
            continue
        assert found.get("error") is None, name
        assert (found["width"], found["height"]) == (file.width, file.height), name
        assert found["coding"] == pytest.approx(opened.coding.numbers, rel=1e-12), name
        assert found["lossless"] is (opened.coding.base_q_idx == 0), name
        assert found["orientation"] == file.orientation, name
        assert found["realism"] == (None if opened.wishes.percent is None else opened.wishes.percent / 100), name
        assert int(found["seed"]) == (opened.wishes.seed or 0), name
    assert refused == 3
    assert len(made) > 30


def test_damaged_headers_end_in_an_error(tmp_path: Path) -> None:
    data = pillow_avif(photograph(16, 16), quality=1)
    (tmp_path / "a.avif").write_bytes(data)
    assert node(CUTS, tmp_path / "a.avif") == 0


def test_noise_is_that_of_python() -> None:
    for seed, found in zip((0, 7, 2**64 - 1), node(NOISE), strict=True):
        expected = seeded_noise(seed, 0, 3, 4, 50, stream=1, top=5, left=6).flatten().numpy()
        np.testing.assert_allclose(np.array(found, np.float32), expected, rtol=1e-6)


# --- in the browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shipped_av1_weights: Path) -> Path:
    """The folder that `make web` makes."""
    pytest.importorskip("onnx")
    from unquant.codecs.onnx_file import onnx_network

    if not (WEB / "node_modules" / ".package-lock.json").is_file():
        try:
            command = [NPM or "npm", "ci", "--silent", "--no-audit", "--no-fund", "--fetch-retries=1"]
            subprocess.run(command, cwd=WEB, timeout=BUILD_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"npm could not install what web/package-lock.json names: {error}")
    folder = tmp_path_factory.mktemp("site")
    network = onnx_network(shipped_av1_weights)
    (folder / "av1.onnx").write_bytes(network.data)
    (folder / "av1.json").write_text(json.dumps(network._asdict() | {"data": None}))
    assert NODE is not None
    command = [NODE, "build.mjs", str(folder / "av1.onnx"), str(folder / "av1.json"), str(folder)]
    subprocess.run(command, cwd=WEB, timeout=BUILD_SECONDS, check=True)
    return folder


@pytest.fixture(scope="module")
def page(browser: Any, site: Path) -> Any:
    """It stays open: loading the network takes seconds."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get((site / "decode.html").as_uri())
    return browser


def addresses(browser: Any) -> set[str]:
    """The addresses that the browser has asked for."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}


def finished(page: Any) -> str:
    """How it ended."""
    end = time.monotonic() + DRAW_SECONDS
    while time.monotonic() < end:
        state = page.execute_script("return document.body.dataset.state")
        if state in ("done", "failed"):
            return state
        time.sleep(0.05)
    raise AssertionError("the page is not done")


def chosen(page: Any, path: Path) -> str:
    page.find_element("id", "file").send_keys(str(path))
    return finished(page)


def slid(page: Any, realism: float) -> None:
    script = "realism.value = 100 * arguments[0]; realism.dispatchEvent(new Event('input'))"
    page.execute_script(script, realism)
    assert finished(page) == "done"


def of_data_url(url: str) -> npt.NDArray[np.float64]:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.array(image.convert("RGB"), np.float64)


def canvas(page: Any) -> npt.NDArray[np.float64]:
    return of_data_url(page.execute_script("return canvas.toDataURL()"))


def by_python(data: bytes, **options: Any) -> npt.NDArray[np.float64]:
    return np.array(unquant.decode(data, deterministic=True, **options), np.float64)


def psnr(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    assert a.shape == b.shape
    return float(10 * np.log10(255**2 / max(np.mean((a - b) ** 2), 1e-9)))


@pytest.mark.slow
def test_the_page_draws_what_python_draws(page: Any, site: Path, tmp_path: Path) -> None:
    data = unquant.encode(photograph(203, 130), bpp=0.3, seed=9, realism=0.75, container="avif")
    (tmp_path / "a.avif").write_bytes(data)
    assert chosen(page, tmp_path / "a.avif") == "done"
    base = by_python(data, preview=True)
    first = canvas(page)
    assert psnr(first, by_python(data)) > 55
    assert psnr(first, base) < 40  # it has drawn
    for realism in (0, 0.5):
        slid(page, realism)
        assert psnr(canvas(page), by_python(data, realism=realism)) > 55
    page.find_element("id", "base").click()
    assert finished(page) == "done"
    assert psnr(canvas(page), base) > 55
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert {url for url in addresses(page) if not url.startswith(("blob:", "data:"))} == {
        (site / name).as_uri() for name in ("decode.html", "unquant.js")
    }


@pytest.mark.slow
def test_windows_and_other_files(page: Any, tmp_path: Path) -> None:
    # 4:2:0, wider than a window, to be turned
    picture = photograph(1100, 60)
    data = pillow_avif(picture, quality=30, subsampling="4:2:0", exif=exif_bytes(orientation=6))
    (tmp_path / "wide.avif").write_bytes(data)
    (tmp_path / "none.avif").write_bytes(b"\0\0\0\x18ftypheic" + bytes(16))
    (tmp_path / "cut.avif").write_bytes(data[:-200])
    assert chosen(page, tmp_path / "none.avif") == "failed"
    assert "not an AVIF" in page.find_element("id", "status").text
    assert chosen(page, tmp_path / "cut.avif") == "failed"
    assert chosen(page, tmp_path / "wide.avif") == "done"
    drawn = by_python(data)
    assert psnr(canvas(page), np.rot90(drawn, -1)) > 45
    assert psnr(drawn, by_python(data, preview=True)) < 40


@pytest.mark.slow
def test_an_image_of_any_page_is_redrawn(browser: Any, site: Path) -> None:
    data = unquant.encode(photograph(120, 90), bpp=0.5, container="avif")
    (site / "a.avif").write_bytes(data)
    images = '<img id="one" src="a.avif" data-unquant="0"><img src="b.png" data-unquant>'
    (site / "index.html").write_text(f'<!doctype html>{images}<script src="unquant.js" async></script>')
    photograph(8, 8).save(site / "b.png")
    with served(site) as address:
        browser.get(f"{address}/index.html")
        assert browser.execute_script("return one.naturalWidth") == 120  # the base, at once
        end = time.monotonic() + DRAW_SECONDS
        while not browser.execute_script("return one.src.startsWith('blob:') && one.complete"):
            assert time.monotonic() < end
            time.sleep(0.05)
        script = (
            "const c = document.createElement('canvas'); [c.width, c.height] = [120, 90];"
            "c.getContext('2d').drawImage(one, 0, 0); return c.toDataURL()"
        )
        assert psnr(of_data_url(browser.execute_script(script)), by_python(data, realism=0)) > 55


@contextmanager
def served(folder: Path) -> Generator[str]:
    """The address of a folder, by HTTP on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_nothing_of_the_page_comes_from_elsewhere() -> None:
    for path in [WEB / "decode.html", *(WEB / "src").iterdir()]:
        assert "http" not in path.read_text("utf-8").replace("http-equiv", ""), path.name
