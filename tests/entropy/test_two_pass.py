"""Who may see whom: the passes of the checkerboard, and the conditions of a q map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unquant.codecs.ratevar import RatevarCodec
from unquant.entropy.base import Params, positions_of
from unquant.entropy.two_pass import TwoPassEntropy

SIZE = (7, 6)
CLASSES = (((0, 1), (1, 0)), ((0, 0), (1, 1)))
"""(i mod 2, j mod 2) of each pass."""


@pytest.fixture(scope="module")
def net(tiny: RatevarCodec) -> TwoPassEntropy:
    assert isinstance(tiny.model.entropy, TwoPassEntropy)
    return tiny.model.entropy


def places(size: tuple[int, int]) -> list[Tensor]:
    return [positions_of(i, *size) for i in range(2)]


def class_mask(classes: tuple[tuple[int, int], ...], size: tuple[int, int]) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    for top, left in classes:
        mask[top::2, left::2] = True
    return mask


def params_of(
    net: TwoPassEntropy, z_hat: Tensor, v: Tensor, log2_q: Tensor | None = None, size: tuple[int, int] = SIZE
) -> list[Params]:
    """Parameters of both passes, as the coder asks for them: of v the second is given what the first has coded."""
    log2_q = torch.full((1, 1, 1, 1), 2.0) if log2_q is None else log2_q
    cond = net.condition_of(log2_q)
    features = net.hyper_synthesis(z_hat, cond, size)
    known, params = torch.zeros_like(v), []
    for i, classes in enumerate(CLASSES):
        positions = positions_of(i, *size)
        if len(positions):
            params.append(net.group_params(i, features, known, cond, log2_q, positions))
        known = torch.where(class_mask(classes, size), v, known)
    return params


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 5), (2, 2), (3, 4), (3, 5), (7, 5), (8, 8)])
def test_the_passes_cover_every_position_once_in_order(size: tuple[int, int]) -> None:
    found = places(size)
    assert torch.cat(found).sort().values.tolist() == list(range(size[0] * size[1]))
    for positions, classes in zip(found, CLASSES, strict=True):
        assert positions.tolist() == class_mask(classes, size).flatten().nonzero().flatten().tolist()


def test_causality(net: TwoPassEntropy) -> None:
    """Pass 1 sees z alone, pass 2 the positions of the first one next to its own, and none of its own."""
    generator = torch.Generator().manual_seed(0)
    z_hat = torch.randn(1, net.hyper, 2, 2, generator=generator) * 4
    v = (torch.randn(1, net.latent, *SIZE, generator=generator) * 5).requires_grad_()
    first, second = params_of(net, z_hat, v)
    assert not first.mu.requires_grad
    assert not first.t.requires_grad
    for part in second:
        (gradient,) = torch.autograd.grad(part.square().sum(), v, retain_graph=True)
        assert torch.equal((gradient[0] != 0).any(dim=0), class_mask(CLASSES[0], SIZE))


@pytest.mark.parametrize("place", [(3, 2), (2, 3), (0, 1)])
def test_the_reach_is_3_by_3(net: TwoPassEntropy, place: tuple[int, int]) -> None:
    """A change of a position of the first pass is seen by the four neighbours of the second, and by nobody else."""
    generator = torch.Generator().manual_seed(0)
    z_hat = torch.randn(1, net.hyper, 2, 2, generator=generator) * 4
    v = torch.randn(1, net.latent, *SIZE, generator=generator) * 5
    other = v.clone()
    other[..., place[0], place[1]] += 1
    changed: set[tuple[int, int]] = set()
    for at, a, b in zip(places(SIZE), params_of(net, z_hat, v), params_of(net, z_hat, other), strict=True):
        changed |= {divmod(int(p), SIZE[1]) for p in at[(a.mu != b.mu).any(dim=1).flatten()]}
    around = [(place[0] + down, place[1] + right) for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    assert changed == {p for p in around if min(p) >= 0}


def test_all_passes_see_z(net: TwoPassEntropy) -> None:
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
    columns = [np.asarray(p) % size[1] for p in places(size)]
    a, b = (params_of(net, z_hat, v, m[None], size) for m in maps)
    for i in range(2):
        changed = (a[i].mu != b[i].mu).any(dim=1).flatten().numpy()
        assert not changed[columns[i] < 10].any()
        assert changed[columns[i] >= 12].all()
    prior = [net.hyper_prior(net.condition_of(m[None]), (2, 5)).t for m in maps]
    assert ((prior[0] != prior[1]).any(dim=1)[0].any(dim=0)).tolist() == [False, False, False, True, True]
