"""Weights files that are no such thing, or are made to do harm: each is an error that names it, and no list stops at one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import unquant
from unquant.codecs import registry
from unquant.errors import ModelMissing, UnquantWarning, WeightsError
from unquant.weights_file import read_shards, read_weights, write_weights
from unquant.weights_header import FORMAT

HASH = "0" * 64
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000

GOLDEN = Path(__file__).parent / "golden"

Make = Callable[[Path], None]


def raw(header: str | bytes, tensors: bytes = b"") -> Make:
    data = header.encode() if isinstance(header, str) else header
    return lambda path: path.write_bytes(len(data).to_bytes(8, "little") + data + tensors) and None


def saying(header: dict[str, Any] | None = None, **metadata: Any) -> Make:
    """A file of no tensors and right metadata, but for what is said here; None: left out."""
    right = {
        "format": FORMAT,
        "family": "ratevar",
        "config": "{}",
        "hashes": json.dumps({"stream": HASH}),
        "training": "{}",
    }
    said = {key: value for key, value in (right | metadata).items() if value is not None}
    return raw(json.dumps({"__metadata__": said, **(header or {})}))


def tensor(shape: Any, start: int = 0, end: int = 0) -> dict[str, Any]:
    return {"g_a.x": {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}}


HEADERS: dict[str, tuple[Make, str]] = {
    "fifo": (lambda path: os.mkfifo(path), "not a regular file"),
    "folder": (lambda path: path.mkdir(), "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "loop": (lambda path: path.symlink_to(path), "cannot be read"),
    "empty": (lambda path: path.touch(), "not a safetensors file"),
    "claims 2^63 bytes of header": (lambda path: path.write_bytes(b"\xff" * 16) and None, "not a safetensors file"),
    "claims 8 TB": (lambda path: _sparse(path, 2**43), "bytes, where weights have"),
    "no json": (raw("{" * 50), "damaged"),
    "no utf-8": (raw(b'{"\xff": 1}'), "damaged"),
    "deep header": (raw(DEEP), "recursion"),
    "header null": (raw("null"), "the header: must be a table"),
    "header a list": (raw("[1]"), "the header: must be a table"),
    "metadata a list": (raw('{"__metadata__": []}'), "its metadata: must be a table"),
    "metadata of numbers": (saying(config=3), "no config"),
    "format a table": (saying(format={}), "not an unquant weights file"),
    "no family": (saying(family=None), "no family"),
    "family a list": (saying(family=[]), "no family"),
    "config null": (saying(config="null"), "config: must be a table"),
    "config a list": (saying(config="[]"), "config: must be a table"),
    "config deep": (saying(config=DEEP), "recursion"),
    "config of a million digits": (saying(config="9" * 1_000_000), "damaged"),
    "hashes a list": (saying(hashes="[]"), "hashes: must be a table"),
    "hashes without stream": (saying(hashes="{}"), "hashes: must be SHA-256"),
    "hash null": (saying(hashes='{"stream": null}'), "hashes: must be SHA-256"),
    "hash of other letters": (saying(hashes=json.dumps({"stream": "z" * 64})), "hashes: must be SHA-256"),
    "training deep": (saying(training=DEEP), "recursion"),
    "training null": (saying(training="null"), "training: must be a table"),
    "tensor null": (saying({"g_a.x": None}), r"g_a\.x: must be a table"),
    "shape negative": (saying(tensor([-8])), r"g_a\.x: no shape"),
    "shape of fractions": (saying(tensor([0.5])), r"g_a\.x: no shape"),
    "shape null": (saying(tensor(None)), r"g_a\.x: no shape"),
    "shape beyond the file": (saying(tensor([2**20, 2**20])), r"g_a\.x: no shape"),
    "shape of no values": (saying(tensor([0, 2**62])), r"g_a\.x: no shape"),
    "shape of a million": (saying(tensor([1] * 100_000)), r"g_a\.x: no shape"),
}


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.parametrize("name", HEADERS)
def test_headers(name: str, tmp_path: Path) -> None:
    make, cause = HEADERS[name]
    path = tmp_path / "w.safetensors"
    make(path)
    for read in (registry.read_info, read_weights, unquant.load):
        with pytest.raises(WeightsError, match=cause) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
        assert len(str(error.value)) < 400


def test_what_is_missing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to("nowhere")
    for path in (tmp_path / "link.safetensors", tmp_path / "no" / "w.safetensors"):
        with pytest.raises(ModelMissing, match="no such weights file"):
            unquant.load(path)


def test_bad_files_are_left_out_of_lists(tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (make, _) in enumerate(HEADERS.values()):
        make(tmp_path / f"bad{number}.safetensors")
    (tmp_path / "link.safetensors").symlink_to("nowhere")
    shutil.copy(tiny_weights, tmp_path / "good.safetensors")
    before = [model.name for model in unquant.models()]
    monkeypatch.setenv(registry.FOLDER_VARIABLE, str(tmp_path))
    with pytest.warns(UnquantWarning) as told:
        assert [model.name for model in unquant.models()] == [*before, "good"]
    assert len(told) == len(HEADERS) + 1
    assert all(str(each.message).endswith("; left out") for each in told)
    assert unquant.models()[-1].name == "good"  # a second time nothing is said: a warning is an error here


def test_nothing_shadows_the_package_s_weights(
    photo: Image.Image, tmp_path: Path, shipped_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by name nor by stream id; another file that claims them is told of once, and the package's decode."""
    picture = photo.crop((0, 0, 40, 30))
    monkeypatch.setattr(registry, "_told", set[str]())
    data = unquant.encode(picture, model="ratevar", quality=20)
    right = unquant.decode(data)
    monkeypatch.setattr("unquant.codecs._loaded", {})
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tmp_path))
    other = tmp_path / shipped_weights.name
    shutil.copy(shipped_weights, other)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnquantWarning)
        assert unquant.decode(data) == right
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    monkeypatch.setattr("unquant.codecs._loaded", {})
    with pytest.warns(UnquantWarning, match=r"has the stream id of the package's ratevar.*left out") as told:
        assert unquant.decode(data) == unquant.decode(data) == right
    assert len(told) == 1
    assert str(other) in str(told[0].message)
    assert registry.find_model("ratevar").path == shipped_weights


@pytest.mark.parametrize(
    "index",
    [DEEP, "null", "[]", "{}", '{"family": "ratevar", "config": {}, "training": {}, "shards": 3}', "9" * 10_000],
)
def test_exports(index: str, tmp_path: Path) -> None:
    (tmp_path / "ema.json").write_text(index)
    with pytest.raises(WeightsError, match="damaged export"):
        read_shards(tmp_path)


# ---- a right header ---------------------------------------------------------------------------------------------------


def parts(weights: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Family, configuration and tensors of a file, as they are stored."""
    with safe_open(weights, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return metadata["family"], json.loads(metadata["config"]), tensors


def set_in(config: dict[str, Any], place: str, value: Any) -> None:
    *path, last = place.split(".")
    for key in path:
        if config.get(key) is None:
            config[key] = {}
        config = config[key]
    config[last] = value


CONFIGS: list[tuple[str, str, Any]] = [
    *(("tiny", "tile", value) for value in (0, -8, 2**40, 6, None, [8], 1e300)),
    *(("tiny", "latent", value) for value in (0, -1, 10**9, 10**30)),
    *(("tiny", "analysis_depth8", value) for value in (-1, 10**9)),
    *(("tiny", "synthesis_width8", value) for value in (0, 10**9)),
    *(("tiny", "q_index_min", value) for value in (-1, 345, 2**31)),
    *(("tiny", "entropy.scale_low", value) for value in (0, -1.0, 32.0, float("nan"))),
    *(("tiny", "entropy.scale_high", value) for value in (float("inf"), 1e300)),
    *(("tiny", "entropy.scales", value) for value in (0, 1, 10**9, 31)),
    ("tiny", "entropy.slices", [1e-9] * 10**5),
    ("tiny", "entropy", []),
    ("tiny", "reverse.steps", 10**9),
    ("tiny", "reverse.noise_channels", 10**9),
    ("tiny", "redraw.depth8", 10**9),
    ("tiny", "default_realism", float("nan")),
    *(("tiny_cdc", "train_steps", value) for value in (0, 1, 10**12)),
    ("tiny_cdc", "compressor.depths", [10**9] * 3),
    ("tiny_cdc", "compressor.widths", [1] * 10**5),
    ("tiny_cdc", "denoiser.octaves", 10**9),
    ("tiny_cdc", "denoiser.scalars", 10**9),
    ("tiny_cdc", "denoiser.kernel", 2**31 + 1),
    ("tiny_cdc", "denoiser.depths", [32] * 3),
    ("tiny_cdc", "entropy.entroformer.window", 10**9),
    ("tiny_cdc", "entropy.entroformer.depth", 10**9),
    ("tiny_av1", "depth8", 10**9),
    ("tiny_av1", "width2", -8),
]


@pytest.mark.parametrize(("name", "place", "value"), CONFIGS)
def test_configurations(name: str, place: str, value: Any, tmp_path: Path) -> None:
    family, config, tensors = parts(GOLDEN / f"{name}.safetensors")
    set_in(config, place, value)
    path = tmp_path / "w.safetensors"
    write_weights(path, family, config, tensors, {})
    with pytest.raises(WeightsError) as error:
        unquant.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value)) < 600


def damaged(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] = value
    return changed


@pytest.mark.parametrize("name", ["tiny", "tiny_cdc", "tiny_av1", "tiny_sliced"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(name: str, value: float, tmp_path: Path) -> None:
    family, config, tensors = parts(GOLDEN / f"{name}.safetensors")
    first = next(key for key in tensors if tensors[key].is_floating_point() and not key.startswith("tables."))
    path = tmp_path / "w.safetensors"
    write_weights(path, family, config, tensors | {first: damaged(tensors[first], value)}, {})
    with pytest.raises(WeightsError, match=f"{first}: not finite numbers"):
        unquant.load(path)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_weights_that_are_no_fractions(dtype: torch.dtype, tmp_path: Path) -> None:
    family, config, tensors = parts(GOLDEN / "tiny.safetensors")
    path = tmp_path / "w.safetensors"
    write_weights(path, family, config, tensors | {"g_a.linear": tensors["g_a.linear"].to(dtype)}, {})
    with pytest.raises(WeightsError, match=r"g_a\.linear: not finite numbers"):
        unquant.load(path)


TABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "a negative count": lambda counts: damaged(counts, -1),
    "another type": lambda counts: counts.to(torch.bfloat16),
    "no counts": lambda counts: counts[:0],
    "two dimensions": lambda counts: counts[None],
    "one number": lambda counts: counts[0],
}


@pytest.mark.parametrize("change", TABLES)
@pytest.mark.parametrize("name", ["counts", "offsets"])
def test_tables(name: str, change: str, tmp_path: Path) -> None:
    family, config, tensors = parts(GOLDEN / "tiny.safetensors")
    key = f"tables.{name}"
    path = tmp_path / "w.safetensors"
    write_weights(path, family, config, tensors | {key: TABLES[change](tensors[key])}, {})
    with pytest.raises(WeightsError, match="tables"):
        unquant.load(path)


def test_a_family_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    saying(family="jpeg")(path)
    assert registry.read_info(path).family == "jpeg"  # of a later version of this program
    with pytest.raises(WeightsError, match=r"w\.safetensors: no family is called 'jpeg'"):
        unquant.load(path)


def test_tensors_of_another_configuration(tmp_path: Path) -> None:
    family, config, _ = parts(GOLDEN / "tiny.safetensors")
    path = tmp_path / "w.safetensors"
    write_weights(path, family, config, {f"g_a.{i}": torch.zeros(1) for i in range(2000)}, {})
    with pytest.raises(WeightsError, match="weights do not fit their configuration") as error:
        unquant.load(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


# ---- from the command line -------------------------------------------------------------------------------------------

CLI = [sys.executable, "-m", "unquant"]


@pytest.mark.slow
def test_exit_codes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.safetensors")
    saying(config=DEEP)(tmp_path / "deep.safetensors")
    environment = os.environ | {registry.FOLDER_VARIABLE: str(tmp_path)}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*CLI, *map(str, arguments)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    for listing in (run("models"), run("info", GOLDEN / "tiny-plain.unq", GOLDEN / "tiny-point.unq")):
        lines = [line for line in listing.stderr.splitlines() if "safetensors" in line]
        assert [line.startswith("unquant: warning: ") and line.endswith("; left out") for line in lines] == [True] * 2
        assert "Traceback" not in listing.stderr
        assert "Warning:" not in listing.stderr
    assert run("models").returncode == 0
    for name in ("fifo", "deep"):
        done = run("encode", GOLDEN / "tiny_av1-plain.png", "a.unq", "--model", tmp_path / f"{name}.safetensors")
        assert done.returncode == 5
        assert f"{name}.safetensors: damaged weights file: " in done.stderr
        assert "Traceback" not in done.stderr


MEMORY = """
import resource, sys
import torch, safetensors.torch
from pathlib import Path
import unquant.cli.exits as exits, unquant.codecs.ratevar, unquant
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26,) * 2)
try:
    unquant.load(Path(sys.argv[1]))
except Exception as error:
    print(exits.describe(error))
    sys.exit(exits.code_of(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_too_little_memory_to_map_a_file(tmp_path: Path) -> None:
    family, config, _ = parts(GOLDEN / "tiny.safetensors")
    path = tmp_path / "large.safetensors"
    metadata = {"format": FORMAT, "family": family, "config": json.dumps(config), "training": "{}"}
    save_file(
        {"g_a.x": torch.zeros(2**26, dtype=torch.float16)}, path, metadata | {"hashes": json.dumps({"stream": HASH})}
    )
    done = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (6, "")
    assert str(path) in done.stdout
