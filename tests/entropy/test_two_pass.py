"""Who may see whom: the passes of the checkerboard, and the conditions of a q map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unquant.codecs.ratevar import RatevarCodec
from unquant.entropy.two_pass import Params, TwoPassEntropy, checkerboard, positions_of

SIZE = (7, 6)


@pytest.fixture(scope="module")
def net(tiny: RatevarCodec) -> TwoPassEntropy:
    return tiny.model.entropy


def params_of(
    net: TwoPassEntropy, z_hat: Tensor, v: Tensor, log2_q: Tensor | None = None, size: tuple[int, int] = SIZE
) -> list[Params]:
    """Parameters of both passes, as the coder asks for them: of v the second pass is given the first pass's positions."""
    log2_q = torch.full((1, 1, 1, 1), 2.0) if log2_q is None else log2_q
    cond = net.condition_of(log2_q)
    features = net.hyper_synthesis(z_hat, cond, size)
    known = torch.where(checkerboard(*size), v, torch.zeros_like(v))
    return [net.pass_params(i, features, known if i else None, cond, log2_q, positions_of(i, *size)) for i in (0, 1)]


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 5), (8, 8)])
def test_the_passes_cover_every_position_once(size: tuple[int, int]) -> None:
    both = [positions_of(i, *size).tolist() for i in (0, 1)]
    assert sorted(both[0] + both[1]) == list(range(size[0] * size[1]))
    for p in both[0]:
        assert (p // size[1] + p % size[1]) % 2 == 1
    assert both[0] == checkerboard(*size).flatten().nonzero().flatten().tolist()


def test_causality(net: TwoPassEntropy) -> None:
    """Pass 1 sees z alone; pass 2 the first pass's positions next to it, and no position of its own."""
    generator = torch.Generator().manual_seed(0)
    z_hat = torch.randn(1, net.hyper, 2, 2, generator=generator) * 4
    v = (torch.randn(1, net.latent, *SIZE, generator=generator) * 5).requires_grad_()
    first, second = params_of(net, z_hat, v)
    odd = checkerboard(*SIZE)
    assert not first.mu.requires_grad
    assert not first.t.requires_grad
    for part in second:
        (gradient,) = torch.autograd.grad(part.square().sum(), v, retain_graph=True)
        assert bool((gradient[..., odd] != 0).any(dim=1).all())
        assert not bool((gradient[..., ~odd] != 0).any())
    # the reach is 3×3: a change at (3, 2) is seen by its four even neighbours and by nobody else
    other = v.detach().clone()
    other[..., 3, 2] += 1
    changed = (params_of(net, z_hat, other)[1].mu != second.mu).any(dim=1).flatten()
    positions = positions_of(1, *SIZE)[changed]
    assert {(int(p) // SIZE[1], int(p) % SIZE[1]) for p in positions} == {(2, 2), (4, 2), (3, 1), (3, 3)}


def test_both_passes_see_z(net: TwoPassEntropy) -> None:
    z_hat = torch.zeros(1, net.hyper, 2, 2, requires_grad=True)
    for params in params_of(net, z_hat, torch.zeros(1, net.latent, *SIZE)):
        for part in params:
            (gradient,) = torch.autograd.grad(part.square().sum(), z_hat, retain_graph=True)
            assert bool((gradient != 0).any(dim=1).all())


def test_everything_sees_q(net: TwoPassEntropy) -> None:
    z_hat, v = torch.ones(1, net.hyper, 2, 2), torch.ones(1, net.latent, *SIZE)
    fine, coarse = (params_of(net, z_hat, v, torch.full((1, 1, 1, 1), q)) for q in (1.0, 4.0))
    for a, b in zip(fine, coarse, strict=True):
        assert not torch.equal(a.mu, b.mu)
        assert float((a.t - b.t).mean()) > 5  # three octaves coarser: far smaller in steps
    priors = [net.hyper_prior(net.condition_of(torch.full((1, 1, 1, 1), q)), (1, 1)) for q in (1.0, 4.0)]
    assert not torch.equal(priors[0].t, priors[1].t)


@pytest.mark.parametrize("size", [(1, 2), (1, 5), (6, 1), (2, 3), (7, 6), (9, 12)])
def test_a_constant_map_is_the_scalar(net: TwoPassEntropy, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    hyper = (-(-size[0] // 4), -(-size[1] // 4))
    z_hat = torch.randn(1, net.hyper, *hyper, generator=generator) * 4
    v = torch.randn(1, net.latent, *size, generator=generator) * 5
    scalar = torch.full((1, 1, 1, 1), 2.25)
    whole = scalar.expand(1, 1, *size).contiguous()
    for a, b in zip(params_of(net, z_hat, v, scalar, size), params_of(net, z_hat, v, whole, size), strict=True):
        torch.testing.assert_close(a.mu, b.mu, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.t, b.t, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net.hyper_analysis(v, scalar), net.hyper_analysis(v, whole), atol=1e-3, rtol=1e-4)
    for a, b in zip(
        net.hyper_prior(net.condition_of(scalar), hyper), net.hyper_prior(net.condition_of(whole), hyper), strict=True
    ):
        torch.testing.assert_close(a.expand_as(b), b, atol=1e-5, rtol=1e-5)


def test_a_map_acts_where_it_is(net: TwoPassEntropy) -> None:
    """Changing q in the last columns leaves the parameters of the first ones, whose z cells they do not share, alone."""
    size = (6, 18)
    z_hat, v = torch.ones(1, net.hyper, 2, 5), torch.ones(1, net.latent, *size)
    maps = torch.full((2, 1, *size), 2.0)
    maps[1, :, :, 12:] = 4.0
    columns = [np.asarray(positions_of(i, *size)) % size[1] for i in (0, 1)]
    a, b = (params_of(net, z_hat, v, m[None], size) for m in maps)
    for i in (0, 1):
        changed = (a[i].mu != b[i].mu).any(dim=1).flatten().numpy()
        assert not changed[columns[i] < 10].any()
        assert changed[columns[i] >= 12].all()
    prior = [net.hyper_prior(net.condition_of(m[None]), (2, 5)).t for m in maps]
    assert ((prior[0] != prior[1]).any(dim=1)[0].any(dim=0)).tolist() == [False, False, False, True, True]
