"""The Entroformer: continuous top-k attention, windows, who may see whom, sizes, training, and exact streams."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import exactness
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from networks import parameter_count
from unquant.codecs.ratevar import RatevarCodec
from unquant.coding import gaussian_tables, scale_grid
from unquant.entropy import attention
from unquant.entropy.attention import BUCKETS, Sight, Stage, diamond_buckets, topk_attention, windows
from unquant.entropy.base import Params, hyper_size, positions_of
from unquant.entropy.entroformer import PUBLISHED, Entroformer, EntroformerConfig, hidden_positions
from unquant.entropy.exact import GUARD, CodedTile, ExactCoder
from unquant.entropy.quantise import quantise
from unquant.errors import CorruptStream, OptionError
from unquant.networks.common import log2_q_of
from unquant.networks.ratevar import Ratevar

LATENT = 16
SMALL = EntroformerConfig(hyper=4, width=16, heads=2, depth=2, mlp=2, hidden=24, top=5, window=8, cond=8)
CPU = torch.device("cpu")


def lively(latent: int = LATENT, config: EntroformerConfig = SMALL, size: float = 0.3) -> Entroformer:
    """A model whose layers that start at 0 do not: every part has its say."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Entroformer(latent, config)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.any():
                nn.init.normal_(module.weight, std=size * module.in_channels**-0.5)
        nn.init.normal_(model.params.absent, std=size)
    return model


@pytest.fixture(scope="module")
def net() -> Entroformer:
    return lively().requires_grad_(False)


def random(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * scale


def checkerboard(height: int, width: int) -> Tensor:
    """True at the positions of the first pass, those with odd i + j."""
    return (torch.arange(height)[:, None] + torch.arange(width)[None, :]) % 2 == 1


# --- attention ------------------------------------------------------------------------------------------------------


def by_hand(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, top: int, allowed: Tensor) -> Tensor:
    """One query at a time, by the formula in the docstring. q: (n, e), bias: (n, m), allowed: (m,)."""
    out = torch.zeros(len(q), v.shape[1], dtype=v.dtype)
    for i in range(len(q)):
        keys = allowed.nonzero().flatten().tolist()
        scores = {j: float((q[i] @ k[j] + bias[i, j]) / math.sqrt(q.shape[1])) for j in keys}
        order = sorted(scores.values(), reverse=True)
        if not order:
            continue
        tau = order[top] if len(order) > top else order[-1] - math.log(2)
        weights = {j: max(math.exp(s - tau) - 1, 0) for j, s in scores.items()}
        out[i] = sum((w * v[j] for j, w in weights.items()), torch.zeros(v.shape[1])) / (1 + sum(weights.values()))
    return out


@pytest.mark.parametrize("top", [1, 4, 11, 12, 40])
@pytest.mark.parametrize("hidden", [0.0, 0.5, 1.0])
def test_attention_is_its_formula(top: int, hidden: float, monkeypatch: pytest.MonkeyPatch) -> None:
    s, n, m, e = 3, 7, 12, 4
    q, k, v = (random(s, size, e, seed=i, dtype=torch.float64) for i, size in enumerate((n, m, m)))
    table = random(BUCKETS, e, seed=3, dtype=torch.float64)
    buckets = torch.randint(BUCKETS, (n, m), generator=torch.Generator().manual_seed(4))
    allowed = torch.rand(m, generator=torch.Generator().manual_seed(5)) >= hidden
    bias = torch.einsum("sne,nme->snm", q, table[buckets])
    right = torch.stack([by_hand(q[i], k[i], v[i], bias[i], top, allowed) for i in range(s)])
    for chunk in (1, 2 * s * m, 1 << 20):
        monkeypatch.setattr(attention, "_CHUNK", chunk)
        found = topk_attention(q, k, v, table, buckets, top, allowed)
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
        if not hidden:
            torch.testing.assert_close(topk_attention(q, k, v, table, buckets, top), right, rtol=1e-12, atol=1e-12)


def of_scores(scores: Tensor, v: Tensor, top: int) -> Tensor:
    """Output of one query for given scores (m,)."""
    return attention.weighted(scores[None, None], v[None], top)[0, 0]


@pytest.mark.parametrize("top", [3, 8])  # a threshold among the keys, and fewer keys than places
def test_nothing_jumps_where_keys_swap(top: int) -> None:
    """One key passes all others: no two neighbouring outputs differ by more than the step allows."""
    v = random(6, 5, dtype=torch.float64)
    fixed = torch.tensor([0.9, 0.7, 0.4, 0.4, 0.1], dtype=torch.float64)
    for at in [0.9, 0.7, 0.4, 0.1]:
        outs = [
            of_scores(torch.cat([fixed, fixed.new_tensor([at + d])]), v, top) for d in (-1e-9, -1e-15, 0, 1e-15, 1e-9)
        ]
        for a in outs:
            assert float((a - outs[2]).abs().max()) < 1e-7
    low, high = (of_scores(torch.cat([fixed, fixed.new_tensor([a])]), v, top) for a in (0.1, 0.9))
    assert float((low - high).abs().max()) > 0.01


def test_equal_scores_give_nothing_rather_than_noise() -> None:
    v = random(20, 5, dtype=torch.float64)
    level = torch.full((20,), 7.0, dtype=torch.float64)
    assert not of_scores(level, v, 4).any()
    for seed in range(20):
        assert (
            float(of_scores(level + random(20, seed=seed, scale=1e-10, dtype=torch.float64), v, 4).abs().max()) < 1e-8
        )


def test_a_key_beyond_the_best_has_no_say() -> None:
    scores, v = random(20, seed=1), random(20, 5, seed=2).requires_grad_()
    of_scores(scores, v, 4).square().sum().backward()
    assert v.grad is not None
    assert set(v.grad.any(dim=1).nonzero().flatten().tolist()) == set(scores.topk(4).indices.tolist())


@pytest.mark.parametrize("allowed", [None, torch.arange(30) % 9 == 1, torch.zeros(30, dtype=torch.bool)])
def test_attention_of_extreme_scores_is_finite(allowed: Tensor | None) -> None:
    q, k, v = (random(2, size, 4, seed=i, scale=300).requires_grad_() for i, size in enumerate((6, 30, 30)))
    table = random(BUCKETS, 4, seed=3).requires_grad_()
    buckets = torch.arange(180).view(6, 30) % BUCKETS
    out = topk_attention(q, k, v, table, buckets, 4, allowed)
    out.square().sum().backward()
    for value in (out, q.grad, k.grad, v.grad, table.grad):
        assert value is not None
        assert bool(torch.isfinite(value).all())


def test_gradients_of_attention() -> None:
    args = [random(2, size, 3, seed=i, dtype=torch.float64).requires_grad_() for i, size in enumerate((4, 9, 9))]
    table = random(BUCKETS, 3, seed=3, dtype=torch.float64).requires_grad_()
    buckets = torch.arange(36).view(4, 9) % BUCKETS
    for allowed in (None, torch.arange(9) % 4 > 0):
        assert torch.autograd.gradcheck(lambda *a, s=allowed: topk_attention(*a, buckets, 3, s), (*args, table))


def test_the_diamond() -> None:
    """25 offsets of L1 distance up to 3 with an entry each, all others share one."""
    down, right = torch.meshgrid(torch.arange(-9, 10), torch.arange(-12, 13), indexing="ij")
    buckets = diamond_buckets(down, right)
    near = down.abs() + right.abs() <= 3
    assert sorted(buckets[near].tolist()) == list(range(25))
    assert set(buckets[~near].tolist()) == {25}
    assert BUCKETS == 26


# --- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (8, 16), (9, 15), (16, 16), (17, 33), (1, 300), (64, 64)])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_tile_the_latent(size: tuple[int, int], shifted: bool) -> None:
    height, width = size
    count = torch.zeros(size, dtype=torch.int64)
    grid = windows(*size, 8, Sight(), CPU, shifted=shifted)
    for window in (w for row in grid for w in row):
        area = count[window.rows, window.cols]
        area += 1
        assert window.buckets.shape == (area.numel(), area.numel())
        assert height * width <= 128 or (area.shape[0] <= 8 and area.shape[1] <= 8)
    assert bool((count == 1).all())
    assert (sum(map(len, grid)) == 1) == (height * width <= 128)
    if height * width > 128:
        other = windows(*size, 8, Sight(), CPU, shifted=not shifted)
        assert {w.cols.start for w in grid[0]} & {w.cols.start for w in other[0]} == {0}


@pytest.mark.parametrize("size", [(7, 6), (17, 33), (20, 16)])
@pytest.mark.parametrize("shifted", [False, True])
def test_pairs_of_windows(size: tuple[int, int], shifted: bool) -> None:
    """Keys are the odd positions of the whole latent, and every pair has the bucket of its own offset."""
    flat = torch.arange(size[0] * size[1]).view(size)
    visible = torch.rand(size, generator=torch.Generator().manual_seed(0)) > 0.5
    grids = [windows(*size, 8, s, CPU, shifted=shifted) for s in (Sight(odd=True), Sight(visible=visible))]
    for odd, masked in zip(*([w for row in grid for w in row] for grid in grids), strict=True):
        place = flat[odd.rows, odd.cols].flatten()
        keys = place[odd.keys]
        assert keys.tolist() == [p for p in place.tolist() if (p // size[1] + p % size[1]) % 2]
        down, right = (
            (keys // size[1])[None] - (place // size[1])[:, None],
            (keys % size[1])[None] - (place % size[1])[:, None],
        )
        assert torch.equal(odd.buckets, diamond_buckets(down, right))
        assert masked.allowed is not None
        assert torch.equal(masked.allowed, visible.flatten()[place])


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that is computed."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and not func.is_view:
                self.elements = max(self.elements, tensor.numel())
        return out


def test_memory_grows_with_the_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the positions, at most four times the largest tensor; and never a score for every pair of positions."""
    monkeypatch.setattr(attention, "_CHUNK", 1 << 10)
    stage = Stage(2, 8, 2, 2, 5, 8, 4).requires_grad_(False)
    cond = torch.zeros(1, 4, 1, 1)
    largest = []
    for side in (16, 32):
        with Largest() as mode:
            stage(random(1, 8, side, side), cond, Sight(odd=True))
        largest.append(mode.elements)
        assert mode.elements <= max(32 * side * side, 64 * 64)  # q, k, v or the MLP; pairs of one window of 8 × 8
        assert mode.elements < side**4 / 8
    assert largest[1] <= 4 * largest[0]


def test_scores_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (random(4, 64, 8, seed=i) for i in range(3))
    buckets = torch.zeros(64, 64, dtype=torch.int64)
    for chunk in (1 << 10, 1 << 12):
        monkeypatch.setattr(attention, "_CHUNK", chunk)
        with Largest() as mode:
            topk_attention(q, k, v, random(BUCKETS, 8), buckets, 5)
        assert mode.elements == max(chunk, q.numel())


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_published_size() -> None:
    """37.4 M parameters with 384 latent and 192 hyper-latent channels: all networks of the entropy model, h_a included."""
    with torch.device("meta"):
        model = Entroformer(384, PUBLISHED)
    assert parameter_count(model) == pytest.approx(37.4e6, rel=0.02)
    assert (PUBLISHED.width, PUBLISHED.heads, PUBLISHED.depth, PUBLISHED.top) == (384, 6, 6, 32)
    assert len(model.synthesis.stages) == 3


def test_default_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 M parameters and 15 000 multiply-accumulates per image pixel, for a whole tile of 64 × 64 positions."""
    monkeypatch.setattr(attention, "_CHUNK", 1 << 30)  # the same products in fewer steps
    with FakeTensorMode():
        model = Entroformer(256).requires_grad_(False)
        v, log2_q = torch.empty(1, 256, 64, 64), torch.empty(1, 1, 1, 1)
        with FlopCounterMode(display=False) as counter:
            z = model.hyper_analysis(v, log2_q)
            cond = model.condition_of(log2_q)
            model.hyper_prior(cond, (16, 16))
            features = model.hyper_synthesis(z, cond, (64, 64))
            for i in (0, 1):
                model.group_params(i, features, v, cond, log2_q, positions_of(i, 64, 64))
    assert parameter_count(model) <= 4.0e6
    # every product, those of the attention too, is a dense one that the counter knows
    assert 10_000 < counter.get_total_flops() / 2 / 1024**2 <= 15_000


@pytest.mark.parametrize("name", list(asdict(SMALL)))
def test_config_names_what_is_wrong(name: str) -> None:
    with pytest.raises(OptionError, match=f"^{name}: "):
        EntroformerConfig(**{name: 0})


def test_width_is_a_multiple_of_heads() -> None:
    with pytest.raises(OptionError, match=r"^width: .*\(6\)"):
        EntroformerConfig(heads=6)


# --- who sees whom --------------------------------------------------------------------------------------------------


def both_passes(net: Entroformer, z_hat: Tensor, v: Tensor, size: tuple[int, int], log2_q: Tensor) -> list[Params]:
    cond = net.condition_of(log2_q)
    features = net.hyper_synthesis(z_hat, cond, size)
    nothing = torch.zeros_like(v)
    known = [nothing, torch.where(checkerboard(*size), v, nothing)]
    places = [positions_of(i, *size) for i in (0, 1)]
    # one position alone is of the second pass
    return [net.group_params(i, features, known[i], cond, log2_q, p) for i, p in enumerate(places) if len(p)]


def given(net: Entroformer, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """ẑ, features, v that wants a gradient, cond, log2 q."""
    log2_q = torch.full((1, 1, 1, 1), 2.0)
    z_hat = random(1, net.hyper, *hyper_size(*size), scale=2)
    cond = net.condition_of(log2_q)
    v = random(1, net.latent, *size, seed=1, scale=5).requires_grad_()
    return z_hat, net.hyper_synthesis(z_hat, cond, size), v, cond, log2_q


@pytest.mark.parametrize("size", [(7, 6), (13, 12)])  # one window; several
def test_two_passes(net: Entroformer, size: tuple[int, int]) -> None:
    """Pass 1 sees z alone, pass 2 all positions of the first one and none of its own; and z."""
    z_hat, _, v, _, log2_q = given(net, size)
    z_hat.requires_grad_()
    first, second = both_passes(net, z_hat, v, size, log2_q)
    odd = checkerboard(*size)
    for part in first:
        gradients = torch.autograd.grad(part.square().sum(), (z_hat, v), retain_graph=True, materialize_grads=True)
        assert bool((gradients[0] != 0).any(dim=1).all())
        assert not bool(gradients[1].any())
    for part in second:
        gradients = torch.autograd.grad(part.square().sum(), (z_hat, v), retain_graph=True)
        assert bool((gradients[0] != 0).any(dim=1).all())
        assert bool((gradients[1][..., odd] != 0).any(dim=1).all())
        assert not bool(gradients[1][..., ~odd].any())


def test_shifted_windows_carry_across_borders(net: Entroformer) -> None:
    """A corner of the last window hears of the first window, even beyond the reach of the shifted one alone."""
    size = (16, 16)
    _, features, v, cond, log2_q = given(net, size)
    known = torch.where(checkerboard(*size), v, torch.zeros_like(v))
    positions = positions_of(1, *size)
    params = net.group_params(1, features, known, cond, log2_q, positions)
    corner = (positions // 16 - 8 < 4) & (positions // 16 >= 8) & (positions % 16 >= 8) & (positions % 16 < 12)
    (gradient,) = torch.autograd.grad(params.mu[:, :, corner].square().sum(), v)
    assert bool(gradient[..., :4, :4].any())


@pytest.mark.parametrize("size", [(6, 7), (13, 12)])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 0.01])
def test_random_masks(net: Entroformer, size: tuple[int, int], ratio: float) -> None:
    """Hidden positions are told from the others alone, which all have their say; and the generator decides all."""
    _, features, v, cond, log2_q = given(net, size)
    positions = hidden_positions(*size, torch.Generator().manual_seed(3), ratio)
    found = net.masked_params(features, v, cond, log2_q, positions)
    n = size[0] * size[1]
    hidden = torch.zeros(n, dtype=torch.bool).index_fill(0, positions, True)
    assert int(hidden.sum()) == len(positions) == max(1, round(ratio * n))
    assert positions.tolist() == sorted(positions.tolist())
    assert found.mu.shape == found.t.shape == (1, LATENT, len(positions), 1)
    for part in found:
        (gradient,) = torch.autograd.grad(part.square().sum(), v, retain_graph=True)
        seen = gradient.flatten(2).any(dim=1)[0]
        assert not bool(seen[hidden].any())
        # with most positions visible not all of them are among the best keys of the few that are hidden
        assert bool(seen[~hidden].all()) if ratio == 0.5 else bool(seen.any()) == (ratio < 1)
    assert torch.equal(positions, hidden_positions(*size, torch.Generator().manual_seed(3), ratio))
    if ratio == 0.5:
        assert not torch.equal(positions, hidden_positions(*size, torch.Generator().manual_seed(4), ratio))


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, math.nan])
def test_mask_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(OptionError, match=r"^ratio: "):
        hidden_positions(2, 2, torch.Generator(), ratio)


def test_quantising_by_masks(net: Entroformer) -> None:
    """Hiding the even positions is the checkerboard; any others are coded last, given the visible ones."""
    y = 8 * torch.randn(2, LATENT, 6, 7, generator=torch.Generator().manual_seed(5))
    log2_q = torch.full((2, 1, 1, 1), 1.5)
    plain = quantise(net, y, log2_q, noise=False)
    masked = quantise(net, y, log2_q, noise=False, hidden=positions_of(1, 6, 7))
    for a, b in zip(plain, masked, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    hidden = hidden_positions(6, 7, torch.Generator().manual_seed(1))
    other = quantise(net, y, log2_q, noise=False, hidden=hidden)
    features = net.hyper_synthesis(other.z_hat, net.condition_of(log2_q), (6, 7))
    expected = net.masked_params(features, other.v_hat, net.condition_of(log2_q), log2_q, hidden)
    torch.testing.assert_close(other.mu.flatten(2)[:, :, hidden, None], expected.mu, atol=1e-4, rtol=1e-4)
    # every position has its turn
    assert bool((other.v_hat - y * 2**-1.5).abs().max() <= 0.5 + 1e-4) == bool((other.t >= 0).all())
    assert bool((other.bits_y.sum(1) > 0).all())


@pytest.mark.parametrize("size", [(6, 7), (13, 12)])
def test_the_two_passes_are_a_mask(net: Entroformer, size: tuple[int, int]) -> None:
    """Training with masks trains what the second pass uses: hiding the even positions gives its parameters."""
    _, features, v, cond, log2_q = given(net, size)
    positions = positions_of(1, *size)
    known = torch.where(checkerboard(*size), v, torch.zeros_like(v))
    masked = net.masked_params(features, v, cond, log2_q, positions)
    for a, b in zip(net.group_params(1, features, known, cond, log2_q, positions), masked, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1), (7, 6), (13, 12)])
def test_a_constant_map_is_the_scalar(net: Entroformer, size: tuple[int, int]) -> None:
    z_hat, _, v, _, _ = given(net, size)
    scalar = torch.full((1, 1, 1, 1), 2.25)
    whole = scalar.expand(1, 1, *size).contiguous()
    for a, b in zip(*(both_passes(net, z_hat, v, size, q) for q in (scalar, whole)), strict=True):
        torch.testing.assert_close(a.mu, b.mu, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.t, b.t, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net.hyper_analysis(v, scalar), net.hyper_analysis(v, whole), atol=1e-4, rtol=1e-4)


def test_everything_sees_q(net: Entroformer) -> None:
    size = (5, 6)
    z_hat, _, v, _, _ = given(net, size)
    fine, coarse = (both_passes(net, z_hat, v, size, torch.full((1, 1, 1, 1), q)) for q in (1.0, 4.0))
    for a, b in zip(fine, coarse, strict=True):
        assert not torch.equal(a.mu, b.mu)
        assert float((a.t - b.t).detach().mean()) > 5  # three octaves coarser: far smaller in steps
    analysed = [net.hyper_analysis(v, torch.full((1, 1, 1, 1), q)) for q in (1.0, 4.0)]
    assert not torch.equal(*analysed)


def test_scales_start_from_the_latents() -> None:
    model = Entroformer(LATENT, SMALL)
    model.start_from(torch.full((LATENT,), 8.0))
    first, second = both_passes(
        model, torch.zeros(1, 4, 2, 2), torch.ones(1, LATENT, 5, 6), (5, 6), torch.ones(1, 1, 1, 1)
    )
    sigma = model.grid.sigma(torch.cat([first.t, second.t], dim=2))
    assert not first.mu.any()
    # t 20 is the scale of a standard deviation of one step
    expected = float(model.grid.sigma(torch.tensor(20.0))) * 4
    assert float(sigma.detach().mean()) == pytest.approx(expected, rel=0.1)


# --- training -------------------------------------------------------------------------------------------------------


@pytest.fixture
def ratevar(tiny: RatevarCodec) -> Ratevar:
    """The tiny codec's networks around an Entroformer."""
    model = Ratevar(tiny.model.config)
    model.entropy = lively()
    return model


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_training_reaches_every_parameter(ratevar: Ratevar, bf16: bool, mapped: bool) -> None:
    torch.manual_seed(0)
    log2_q = torch.rand(2, 1, 12, 13) * 4 if mapped else torch.tensor([0.5, 3.0]).view(2, 1, 1, 1)
    y = random(2, LATENT, 12, 13, scale=8)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = ratevar.quantise(y, log2_q, noise=True)
    assert out.bits_y.dtype == out.v_hat.dtype == torch.float32
    (out.bits_y.sum() + out.bits_z.sum()).backward()
    for name, parameter in ratevar.entropy.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name
    with torch.no_grad():
        coded = ratevar.quantise(y, log2_q, noise=False)
    symbols = torch.where(coded.t >= -0.5, coded.v_hat - coded.mu, torch.zeros(()))
    torch.testing.assert_close(symbols, symbols.round(), atol=1e-4, rtol=0)


def test_masks_train() -> None:
    model = lively()
    _, features, v, cond, log2_q = given(model, (6, 7))
    hidden = hidden_positions(6, 7, torch.Generator().manual_seed(0))
    params = model.masked_params(features, v, cond, log2_q, hidden)
    (params.mu.square().sum() + params.t.sum()).backward()
    for name, parameter in model.context.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


# --- exactness ------------------------------------------------------------------------------------------------------

NOISE = 1e-12
SIZES = [(1, 1), (1, 5), (7, 10), (33, 40)]


def coder_of(model: Entroformer) -> ExactCoder:
    grid = model.grid
    return ExactCoder(model, gaussian_tables(scale_grid(grid.low, grid.high, grid.count)))


@pytest.fixture(scope="module")
def coder(net: Entroformer) -> ExactCoder:
    return coder_of(net)


def tile_of(net: Entroformer, size: tuple[int, int], mapped: bool) -> tuple[Tensor, Tensor, Tensor]:
    """v, z and log2 q of a random latent."""
    log2_q = torch.full((1, 1, 1, 1), log2_q_of(96))
    if mapped:
        log2_q = log2_q_of(torch.randint(16, 300, (1, 1, *size), generator=torch.Generator().manual_seed(1)))
    v = random(1, LATENT, *size, seed=2, scale=4, dtype=torch.float64) * torch.exp2(-log2_q)
    return v, net.hyper_analysis(v.float(), log2_q), log2_q


@pytest.mark.slow
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_same_symbols_under_noise(net: Entroformer, coder: ExactCoder, size: tuple[int, int], mapped: bool) -> None:
    """On 1 and 2 threads and with noise after every layer; analysis is not needed to decode."""
    assert not hasattr(coder.networks, "analysis")
    v, z, log2_q = tile_of(net, size, mapped)
    coded = coder.encode(v, z, log2_q)
    assert float((coded.v_hat - v).abs().max()) < (0.51 if not mapped else math.inf)
    threads = torch.get_num_threads()
    clean: list[Tensor] = []
    try:
        for number, scale, seed in ((1, 0.0, None), (2, 0.0, None), (1, NOISE, 0), (2, NOISE, 1), (1, -NOISE, None)):
            torch.set_num_threads(number)
            with exactness.disturbed(coder, scale, seed) as noise, exactness.recorded_grids() as grids:
                decoded = coder.decode(coded.stream, size, log2_q)
            assert decoded.symbols == coded.symbols
            assert torch.equal(decoded.v_hat, coded.v_hat)
            clean = clean or grids
            found = exactness.deviation(clean, grids)
            assert found < (GUARD if scale else GUARD / 1000)
            assert not scale or (found > 1e-13 and sum(noise.disturbed.values()) > 100)
    finally:
        torch.set_num_threads(threads)


def test_noise_meets_the_attention(net: Entroformer, coder: ExactCoder) -> None:
    v, z, log2_q = tile_of(net, (7, 10), False)
    coded = coder.encode(v, z, log2_q)
    with exactness.disturbed(coder, NOISE, 0) as noise:
        coder.decode(coded.stream, (7, 10), log2_q)
    assert {"baddbmm", "exp", "sub", "relu", "bmm", "div"} <= set(noise.disturbed)


def test_large_noise_is_caught(net: Entroformer, coder: ExactCoder) -> None:
    """So the test above can fail."""
    v, z, log2_q = tile_of(net, (7, 10), False)
    coded = coder.encode(v, z, log2_q)

    def decoded() -> bytes | None:
        try:
            return coder.decode(coded.stream, (7, 10), log2_q).symbols
        except CorruptStream:
            return None

    assert decoded() == coded.symbols
    with exactness.disturbed(coder, 1e-3, seed=0):
        assert decoded() != coded.symbols


def test_ties_are_harmless() -> None:
    """A flat latent: all tokens of the first blocks are equal, and so are hosts of scores at the threshold."""
    model = lively().requires_grad_(False)
    coder = coder_of(model)
    v, log2_q = torch.zeros(1, LATENT, 12, 14, dtype=torch.float64), torch.full((1, 1, 1, 1), 1.5)
    z = torch.zeros(1, model.hyper, 3, 4)
    coded = coder.encode(v, z, log2_q)
    for scale, seed in ((NOISE, 0), (NOISE, 1), (1e-11, 2), (-NOISE, None)):
        with exactness.disturbed(coder, scale, seed):
            decoded = coder.decode(coded.stream, (12, 14), log2_q)
        assert decoded.symbols == coded.symbols


@pytest.fixture(scope="module")
def measured(net: Entroformer, coder: ExactCoder) -> tuple[CodedTile, Tensor, Tensor]:
    v, z, log2_q = tile_of(net, (33, 40), False)
    return coder.encode(v, z, log2_q), v, log2_q


def test_stream_is_the_cross_entropy(ratevar: Ratevar, measured: tuple[CodedTile, Tensor, Tensor]) -> None:
    coded, v, log2_q = measured
    with torch.no_grad():
        y = (v * torch.exp2(log2_q)).float()
        out = ratevar.quantise(y, log2_q, noise=False)
        draws = [ratevar.quantise(y, log2_q, noise=True) for _ in range(3)]
    estimate = float(out.bits_y.double().sum() + out.bits_z.double().sum()) / 8
    assert estimate > 2000
    assert abs(len(coded.stream) - estimate) <= 0.02 * estimate + 16
    assert np.mean([float(d.bits_y.sum() + d.bits_z.sum()) / 8 for d in draws]) >= estimate
