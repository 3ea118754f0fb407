"""The same symbols whatever the arithmetic (docs/design.md): other instruction sets, threads and rounding errors."""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import exactness
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import unquant
from unquant.codecs.latent import AnyLatentCodec
from unquant.entropy import exact
from unquant.entropy.base import T_MIN, T_SOFT
from unquant.entropy.entroformer import Entroformer
from unquant.entropy.exact import GUARD, MU_GRID, snap, unsafe
from unquant.errors import CorruptStream
from unquant.networks.common import log2_q_of
from unquant.selftest import INSTRUCTION_SETS as VARIANTS

NOISE = 1e-12
SHIPPED = {"ratevar": "shipped", "cdc": "shipped_cdc"}
TINY = ("tiny", "tiny_sliced", "tiny_cdc")
WEIGHTS = (*TINY, *SHIPPED)


def blocks() -> Image.Image:
    """What no model expects: blocks of random primary colours beside a chequerboard. Escapes, and uncoded positions."""
    colours = np.random.default_rng(1).integers(0, 2, (9, 16, 3), dtype=np.uint8) * 255
    colours[:, 8:] = (np.indices((9, 8)).sum(0) % 2 * 255)[:, :, None]
    return Image.fromarray(colours).resize((256, 144), Image.Resampling.NEAREST)


def encoded(codec: AnyLatentCodec, photo: Image.Image) -> dict[str, tuple[bytes, str]]:
    """Files by name, each with the digest of what the encoder put into it."""
    low, high = codec.q_index_range
    crop = photo.crop((200, 120, 360, 264))
    q_map = np.full((9, 10), high)
    q_map[3:7, 2:8] = low
    options = {"fine": {"q_index": low}, "map": {"q_index": q_map}, "coarse": {"q_index": high}}
    files = {name: exactness.encode_recorded(codec, crop, **o) for name, o in options.items()}
    return files | {"blocks": exactness.encode_recorded(codec, blocks(), q_index=low)}


@pytest.fixture(scope="session")
def files(either: AnyLatentCodec, photo: Image.Image) -> dict[str, tuple[bytes, str]]:
    """`encoded` of a tiny model."""
    return encoded(either, photo)


@pytest.fixture(scope="session")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, photo: Image.Image
) -> dict[str, Any]:
    """By variant: the capability that torch reports, and by weights the results of `exactness.run` with what is right."""
    folder = tmp_path_factory.mktemp("exactness")
    codecs: dict[str, tuple[AnyLatentCodec, Path, list[str]]] = {}
    for name in TINY:
        weights: Path = request.getfixturevalue(f"{name}_weights")
        codecs[name] = (request.getfixturevalue(name), weights, ["fine", "map", "coarse", "blocks"])
    source = Path(unquant.__file__).parents[1]
    for name in SHIPPED:
        shipped = source / "unquant" / "weights" / f"{name}.safetensors"
        if shipped.is_file():
            codecs[name] = (unquant.load(str(shipped)), shipped, ["fine", "map"])
    right: dict[str, dict[str, str]] = {}
    jobs: list[dict[str, Any]] = []
    for name, (codec, weights, kept) in codecs.items():
        files = encoded(codec, photo)
        right[name] = {f"{name}-{k}.unq": files[k][1] for k in kept}
        for k in kept:
            (folder / f"{name}-{k}.unq").write_bytes(files[k][0])
        paths = [str(folder / file) for file in right[name]]
        jobs.append({"weights": str(weights), "files": paths, "scale": NOISE, "threads": [1, 2]})

    def run(number: int, environment: dict[str, str]) -> Any:
        spec = folder / f"{number}.json"
        seeds = {name: [number] if name in SHIPPED else [2 * number, 2 * number + 1] for name in codecs}
        spec.write_text(json.dumps([job | {"seeds": seeds[name]} for name, job in zip(codecs, jobs, strict=True)]))
        done = subprocess.run(
            [sys.executable, exactness.__file__, spec],
            env=os.environ | {"PYTHONPATH": str(source), "OMP_WAIT_POLICY": "PASSIVE"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        return {
            "capability": answer["capability"],
            **{name: (right[name], results) for name, results in zip(codecs, answer["results"], strict=True)},
        }

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(VARIANTS, pool.map(run, range(len(VARIANTS)), VARIANTS.values()), strict=True))


def of(outcomes: dict[str, Any], variant: str, weights: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    if weights not in outcomes[variant]:
        pytest.skip("the package's weights are not installed")
    return outcomes[variant][weights]


@pytest.mark.slow
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_same_symbols_and_latents(outcomes: dict[str, Any], variant: str, weights: str) -> None:
    """With and without noise after every layer, on 1 and 2 threads, with every instruction set."""
    right, results = of(outcomes, variant, weights)
    assert {(r["file"], r["threads"], r["seed"] is None) for r in results} == {
        (file, threads, clean) for file in right for threads in (1, 2) for clean in (True, False)
    }
    for result in results:
        assert result["digest"] == right[result["file"]], result


@pytest.mark.slow
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_noise_is_there_and_below_the_guard(outcomes: dict[str, Any], variant: str, weights: str) -> None:
    _, results = of(outcomes, variant, weights)
    for result in results:
        if result["seed"] is None:
            assert result["deviation"] < GUARD / 1000
        else:
            assert result["disturbed"] > 40
            assert 1e-13 < result["deviation"] < GUARD
    noisy = [r["raw"] for r in results if r["seed"] is not None]
    assert len(set(noisy)) >= len(noisy) // 2  # the two numbers of threads may agree, two seeds may not


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instruction sets of x86")
def test_the_variants_are_variants(outcomes: dict[str, Any]) -> None:
    capability = {variant: outcome["capability"] for variant, outcome in outcomes.items()}
    assert capability["aten default"] in ("DEFAULT", "NO AVX")  # torch 2.6 calls it NO AVX
    assert capability["aten avx2"] in ("AVX2", "DEFAULT")  # where the CPU has it
    raw = {v: [r["raw"] for r in o["tiny"][1] if r["seed"] is None] for v, o in outcomes.items()}
    if capability["as it is"] != capability["aten default"]:
        assert raw["as it is"] != raw["aten default"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fine", "coarse", "blocks"])
def test_large_noise_is_caught(either: AnyLatentCodec, files: dict[str, tuple[bytes, str]], name: str) -> None:
    """So the tests above can fail: an error that the guard does not cover ends in CorruptStream, never in a picture."""
    data, right = files[name]
    assert exactness.decode_digest(either, data) == right
    with exactness.disturbed(either.exact, 1e-3, seed=0):
        assert exactness.decode_digest(either, data) == "CorruptStream"
        with pytest.raises(CorruptStream):
            either.decode(data)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_gpu_decodes_the_same(request: pytest.FixtureRequest, weights: str, photo: Image.Image) -> None:
    name = SHIPPED.get(weights, weights)
    cpu: AnyLatentCodec = request.getfixturevalue(name)
    gpu = type(cpu).from_file(request.getfixturevalue(f"{name}_weights"), "cuda")
    for data, right in encoded(cpu, photo).values():
        assert exactness.decode_digest(gpu, data) == right
    for data, right in encoded(gpu, photo).values():
        assert exactness.decode_digest(cpu, data) == right


def test_the_files_hold_what_is_hard(
    either: AnyLatentCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escapes, uncoded positions and several tiles are really among what is tested."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    class Recorder(exact.SymbolEncoder):
        def encode(self, symbols: np.ndarray, table_index: np.ndarray) -> None:
            seen.append((symbols.copy(), table_index.copy()))
            super().encode(symbols, table_index)

    monkeypatch.setattr(exact, "SymbolEncoder", Recorder)
    encoded(either, photo)
    symbols, index = (np.concatenate(arrays) for arrays in zip(*seen, strict=True))
    assert len(seen) == (1 + len(either.model.entropy.groups)) * 4 * 4  # z and groups, tiles, files
    assert (index == -1).sum() >= 3
    assert len(np.unique(index)) > 25
    widths = either.exact.tables.half_widths[np.maximum(index, 0)]
    assert ((np.abs(symbols) > widths) & (index >= 0)).sum() > 20


# --- overrides ------------------------------------------------------------------------------------------------------


def plant(coder: exact.ExactCoder, log2_q: float) -> None:
    """Set the last layers so that at this q every 64·μ is n + ½ and every t is m + ½, up to float64."""
    net = coder.networks

    def head_for(t: np.ndarray, octaves: np.ndarray) -> torch.Tensor:
        """The head's output at which the soft floor gives t."""
        base = T_MIN + T_SOFT * np.log(np.expm1((t - T_MIN) / T_SOFT))
        return torch.from_numpy((base - 20.0 - octaves * (math.log(2) / net.grid.log_ratio)) / 10.0)

    def means(count: int) -> torch.Tensor:
        return torch.from_numpy((np.arange(count) % 11 * 7 - 35 + 0.5) / MU_GRID)

    prior = net.prior[-1]
    prior.weight.zero_()
    prior.bias.copy_(torch.cat([means(net.hyper), head_for(np.arange(net.hyper) % 9 + 3.5, np.zeros(net.hyper))]))
    octaves = net.log2_std.numpy() - log2_q
    heads = [net.params.head] if isinstance(net, Entroformer) else [net_pass.head for net_pass in net.passes]
    for number, (head, group) in enumerate(zip(heads, net.groups, strict=False)):
        head.weight.zero_()
        part = group.channels
        t = np.arange(part.stop - part.start) % 13 + number % 2 - 0.5  # −½, between coded and not coded, is among them
        head.bias.copy_(torch.cat([means(len(t)), head_for(t, octaves[part])]))


@pytest.fixture
def planted(either_weights: Path) -> AnyLatentCodec:
    codec = unquant.load(str(either_weights))
    codec.exact.networks = copy.deepcopy(codec.exact.networks)
    plant(codec.exact, log2_q_of(96))
    return codec


DISTURBANCES = [(NOISE, None), (-NOISE, None), (1e-10, None), (-1e-10, None), (NOISE, 1), (NOISE, 2), (1e-10, 3)]


@pytest.mark.slow
def test_values_on_boundaries(planted: AnyLatentCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    crop = photo.crop((200, 120, 360, 264))
    found: list[int] = []

    def count(grid: torch.Tensor) -> Any:
        overrides = unsafe(grid)
        found.append(overrides[0].size - grid.numel())
        return overrides

    monkeypatch.setattr(exact, "unsafe", count)
    data, right = exactness.encode_recorded(planted, crop, q_index=96)
    assert set(found) == {0}  # every single value is unsafe
    plain = planted.decode(data)
    for scale, seed in DISTURBANCES:
        with exactness.disturbed(planted.exact, scale, seed), exactness.recorded_grids() as grids:
            assert exactness.decode_digest(planted, data) == right
            assert np.array_equal(planted.decode(data), plain)
        distances = torch.cat([g - g.floor() - 0.5 for g in grids])
        assert bool((distances > 0).any()) or scale < 0
        assert bool((distances < 0).any()) or scale > 0


def test_without_overrides_the_same_is_lost(
    planted: AnyLatentCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop = photo.crop((200, 120, 360, 264))
    monkeypatch.setattr(exact, "unsafe", lambda grid: (np.zeros(0, np.int64), np.zeros(0, np.bool_)))
    data, right = exactness.encode_recorded(planted, crop, q_index=96)
    assert exactness.decode_digest(planted, data) == right
    for scale, seed in DISTURBANCES:
        with exactness.disturbed(planted.exact, scale, seed):
            assert exactness.decode_digest(planted, data) == "CorruptStream"


NEAR = st.builds(
    lambda n, half, error: n + half + error,
    st.integers(-20_000, 20_000),
    st.sampled_from([0.0, 0.5]),
    st.floats(-2 * GUARD, 2 * GUARD),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NEAR, st.floats(-0.95, 0.95)), min_size=1, max_size=40))
def test_overrides_cover_any_error_below_the_guard(values: list[tuple[float, float]]) -> None:
    grid = torch.tensor([v for v, _ in values], dtype=torch.float64)
    other = grid + torch.tensor([e * GUARD for _, e in values], dtype=torch.float64)
    overrides = unsafe(grid)
    snapped = snap(grid, overrides)
    assert bool(((snapped - grid).abs() <= 0.5 + GUARD).all())
    assert torch.equal(snap(other, overrides), snapped)


def test_unsafe_states_the_side() -> None:
    grid = torch.tensor([0.5, 1.0, -0.5, 2.5 - 5e-8, 2.5 + 5e-8, 2.5 + 2e-7, -3.5 - 9e-8, 0.49], dtype=torch.float64)
    positions, sides = unsafe(grid)
    assert positions.tolist() == [0, 2, 3, 4, 6]
    assert sides.tolist() == [True, True, False, True, False]
    assert snap(grid, (positions, sides)).tolist() == [1, 1, 0, 2, 3, 3, -4, 0]


def test_guard_is_rare(either: AnyLatentCodec, photo: Image.Image) -> None:
    """On real pictures hardly any value is unsafe: the list costs nothing."""
    with exactness.recorded_grids() as grids:
        either.encode(photo.crop((0, 0, 384, 256)), q_index=either.q_index_range[0])
    total = sum(g.numel() for g in grids)
    assert total > 10_000
    assert sum(unsafe(g)[0].size for g in grids) <= 2
