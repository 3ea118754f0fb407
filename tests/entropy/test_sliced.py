"""Channel slices: which group sees which coefficients, and the two walks over the groups."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unquant.codecs.ratevar import RatevarCodec
from unquant.entropy.base import EntropyModel, Params
from unquant.entropy.quantise import quantise
from unquant.entropy.sliced import SlicedEntropy
from unquant.entropy.two_pass import TwoPassEntropy
from unquant.errors import OptionError, WeightsError
from unquant.networks.cdc import CdcConfig
from unquant.networks.config import EntropyConfig, entropy_model
from unquant.networks.ratevar import RatevarConfig

SHARES = (0.06, 0.16, 0.28, 0.5)
SIZE = (7, 6)


@pytest.fixture(scope="module")
def net(tiny_sliced: RatevarCodec) -> SlicedEntropy:
    assert isinstance(tiny_sliced.model.entropy, SlicedEntropy)
    return tiny_sliced.model.entropy


def order(net: EntropyModel, size: tuple[int, int]) -> Tensor:
    """The number of the group that each coefficient is in, (c, h16·w16)."""
    found = torch.full((net.latent, size[0] * size[1]), -1)
    for number, group in enumerate(net.groups):
        part = found[group.channels]
        assert bool((part[:, group.positions(size)] == -1).all())
        part[:, group.positions(size)] = number
    return found


def params_of(
    net: EntropyModel, z_hat: Tensor, v: Tensor, log2_q: Tensor, size: tuple[int, int] = SIZE
) -> list[Params]:
    """Parameters of all groups, each given all of v, even what comes later."""
    cond = net.condition_of(log2_q)
    features = net.hyper_synthesis(z_hat, cond, size)
    places = [group.positions(size) for group in net.groups]
    return [net.group_params(i, features, v, cond, log2_q, p) for i, p in enumerate(places) if len(p)]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (3, 4), (7, 6)])
def test_every_coefficient_is_in_one_group(net: SlicedEntropy, size: tuple[int, int]) -> None:
    found = order(net, size).unflatten(1, size)
    assert len(net.groups) == 6
    for channel, slice_number in ((0, 0), (1, 0), (2, 1), (5, 1), (6, 2), (15, 2)):
        expected = (torch.arange(size[0])[:, None] + torch.arange(size[1]) + 1) % 2
        assert torch.equal(found[channel], 2 * slice_number + expected)


def test_the_shares_are_of_the_channels_and_the_parameters_those_of_two_passes() -> None:
    config = EntropyConfig(hyper=64, width=192, context=192, hidden=384, cond=32)
    two = entropy_model(320, config)
    sliced = SlicedEntropy(320, SHARES, 64, 192, 192, 384, 32)
    assert [part.stop for part in sliced.slices] == [19, 70, 160, 320]
    counts = [sum(p.numel() for p in model.parameters()) for model in (two, sliced)]
    assert isinstance(two, TwoPassEntropy)
    assert counts[1] == pytest.approx(counts[0], rel=0.01)


def test_a_group_sees_the_slices_before_and_the_first_half_of_its_own(net: SlicedEntropy) -> None:
    """Each in 3×3 positions; of the own slice's second half, of which it is given nothing in the walk, its own channels."""
    generator = torch.Generator().manual_seed(0)
    z_hat = torch.randn(1, net.hyper, 2, 2, generator=generator) * 4
    v = (torch.randn(1, net.latent, *SIZE, generator=generator) * 5).requires_grad_()
    numbers = order(net, SIZE)
    for number, (group, params) in enumerate(
        zip(net.groups, params_of(net, z_hat, v, torch.full((1, 1, 1, 1), 2.0)), strict=True)
    ):
        if not number:
            assert not params.mu.requires_grad
            continue
        row, column = 3, 2 + group.parity
        place = group.positions(SIZE).tolist().index(row * SIZE[1] + column)
        near = torch.zeros(SIZE, dtype=torch.bool)
        near[row - 1 : row + 2, column - 1 : column + 2] = True
        for part in params:
            (gradient,) = torch.autograd.grad(part[0, :, place].square().sum(), v, retain_graph=True)
            seen = (gradient[0] != 0).flatten(1)
            before = torch.zeros_like(seen)
            before[: group.channels.start] = near.flatten()
            own = torch.zeros_like(seen)
            if group.parity:
                own[group.channels] = near.flatten()
            assert torch.equal(seen, before | own)
            assert bool((numbers[seen & ~own] < number).all())


def test_all_groups_see_z_and_q(net: SlicedEntropy) -> None:
    z_hat, v = torch.zeros(1, net.hyper, 2, 2, requires_grad=True), torch.ones(1, net.latent, *SIZE)
    fine, coarse = (params_of(net, z_hat, v, torch.full((1, 1, 1, 1), q)) for q in (1.0, 4.0))
    for a, b in zip(fine, coarse, strict=True):
        assert not torch.equal(a.mu, b.mu)
        assert float((a.t - b.t).detach().mean()) > 5
        (gradient,) = torch.autograd.grad(a.mu.square().sum() + a.t.square().sum(), z_hat, retain_graph=True)
        assert bool((gradient != 0).any(dim=1).all())


def test_a_constant_map_is_the_scalar(net: SlicedEntropy) -> None:
    generator = torch.Generator().manual_seed(1)
    z_hat = torch.randn(1, net.hyper, 2, 2, generator=generator) * 4
    v = torch.randn(1, net.latent, *SIZE, generator=generator) * 5
    scalar = torch.full((1, 1, 1, 1), 2.25)
    whole = scalar.expand(1, 1, *SIZE).contiguous()
    for a, b in zip(params_of(net, z_hat, v, scalar), params_of(net, z_hat, v, whole), strict=True):
        torch.testing.assert_close(a.mu, b.mu, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.t, b.t, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)])
def test_training_and_files_walk_alike(tiny_sliced: RatevarCodec, size: tuple[int, int]) -> None:
    """`quantise` in float64 finds the means and symbols of the exact path, but for its snap to 1/64 of a step."""
    coder = tiny_sliced.exact
    generator = torch.Generator().manual_seed(2)
    y = torch.randn(1, 16, *size, generator=generator, dtype=torch.float64) * 20
    log2_q = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64)
    entropy = tiny_sliced.model.entropy
    with torch.no_grad():
        z = entropy.hyper_analysis((y / 4).float(), log2_q.float())
        coded = coder.encode(y / 4, z, log2_q)
        decoded = coder.decode(coded.stream, size, log2_q)
        trained = quantise(entropy, y.float(), log2_q.float(), noise=False)
    assert torch.equal(decoded.v_hat, coded.v_hat)
    assert decoded.symbols == coded.symbols
    assert len(decoded.symbols) == 4 * (y.numel() + z.numel())
    # a mean snapped across a rounding boundary moves a symbol, and with it what follows: nearly all agree
    for a, b, tolerance in (
        (trained.v_hat, decoded.v_hat, 0.05),
        (trained.mu, decoded.mu, 0.05),
        (trained.t, decoded.t, 0.5),
    ):
        assert float(((a - b).abs() <= tolerance).double().mean()) > 0.9


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"slices": (0.5, 0.4)}, r"^slices: shares of sum 1, not \[0\.5, 0\.4\]"),
        ({"slices": ()}, "^slices: shares of sum 1"),
        ({"slices": (0.0, 1.0)}, r"^slices\.0: must be greater than 0"),
        ({"slices": 4}, "^slices: must be a valid tuple"),
    ],
)
def test_slices_are_shares(values: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        EntropyConfig(**values)  # pyright: ignore[reportArgumentType]


def test_a_slice_has_a_channel() -> None:
    with pytest.raises(OptionError, match=r"^slices: 8 channels are too few"):
        entropy_model(8, EntropyConfig(slices=SHARES))
    with pytest.raises(WeightsError, match=r"entropy\.slices: 8 channels are too few"):
        RatevarConfig.from_dict({"latent": 8, "entropy": {"slices": list(SHARES)}})
    with pytest.raises(WeightsError, match=r"entropy\.slices: 8 channels are too few"):
        CdcConfig.from_dict({"compressor": {"latent": 8}, "entropy": {"slices": list(SHARES)}})
