"""f of `av1`: its start, its windows, what reaches its output."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from networks import shaken
from unquant.codecs.windows import Window, margins_of, run_windowed, windows
from unquant.nn.blocks import PositionNorm
from unquant.nn.redraw import COARSE_NOISE, FINE_NOISE, REDRAW_STRIDE, Redraw


def redraw(depth8: int = 1, depth16: int = 1) -> Redraw:
    """No two widths alike, so that one taken for another does not fit."""
    return Redraw(scalars=5, width8=6, depth8=depth8, width16=7, depth16=depth16, width2=4, cond=3)


def given(h16: int, w16: int, batch: int = 1, seed: int = 1) -> list[Tensor]:
    """A picture, scalars, strength, realism and noise of both kinds, float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (3, 16 * h16, 16 * w16),
        (5, 1, 1),
        (1, 1, 1),
        (1, 1, 1),
        (COARSE_NOISE, 2 * h16, 2 * w16),
        (FINE_NOISE, 8 * h16, 8 * w16),
    )
    return [torch.rand(batch, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_zero_at_the_start() -> None:
    torch.manual_seed(0)
    network = redraw().double()
    inputs = given(2, 3, batch=2)
    assert torch.equal(network(*inputs), inputs[0])
    assert not torch.equal(shaken(network)(*inputs), inputs[0])


def test_the_residual_grows_with_its_strength() -> None:
    network = shaken(redraw())
    x_q, scalars, strength, realism, *noise = given(2, 3)
    once, twice = (network(x_q, scalars, factor * strength, realism, *noise) - x_q for factor in (1, 2))
    torch.testing.assert_close(twice, 2 * once)
    assert torch.equal(network(x_q, scalars, 0 * strength, realism, *noise), x_q)


@pytest.mark.parametrize(("depth8", "depth16"), [(0, 1), (1, 0), (1, 1), (2, 1), (3, 2)])
def test_the_halo_is_the_receptive_field(depth8: int, depth16: int) -> None:
    """By the gradient of one position's outputs: nothing beyond the halo counts, in picture and noise, the halo does."""
    network = shaken(redraw(depth8, depth16))
    centre = network.halo + 2
    inputs = [each.requires_grad_() for each in given(1, 2 * centre + 1, seed=depth8)]
    place = slice(16 * centre, 16 * centre + 16)
    network(*inputs)[..., place].square().sum().backward()
    felt: list[tuple[int, int]] = []
    for plane, stride in ((inputs[0], 16), (inputs[4], 2), (inputs[5], 8)):
        assert plane.grad is not None
        columns = plane.grad.abs().amax(dim=(0, 1, 2)).unflatten(0, (-1, stride)).amax(1).nonzero().flatten()
        felt.append((centre - int(columns.min()), int(columns.max()) - centre))
    assert max(map(max, felt)) <= network.halo
    # a position may be kept free for what the layers at 1/2 and 1 reach
    assert min(felt[0]) >= network.halo - 1


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("window", "depth8", "depth16"), [(1, 1, 1), (2, 1, 1), (5, 1, 1), (5, 0, 1), (3, 2, 0)])
def test_windows(window: int, depth8: int, depth16: int, mapped: bool) -> None:
    """Told of its margins or not, a window is that of the whole, at the plane's edges and within."""
    network = shaken(redraw(depth8, depth16))
    x_q, *told, coarse, fine = given(9, 13)
    if mapped:
        generator = torch.Generator().manual_seed(2)
        told = [torch.rand(1, m.shape[1], 9, 13, generator=generator, dtype=torch.float64) for m in told]
    size = (9, 13)
    with torch.no_grad():
        whole = network(x_q, *told, coarse, fine)

        def inputs(read: Window) -> list[Tensor]:
            cuts = (read.times(s).cut(plane) for plane, s in ((x_q, REDRAW_STRIDE), (coarse, 2), (fine, 8)))
            x, c, f = cuts
            return [x, *(read.cut(m) for m in told), c, f]

        def part(*read: int) -> Tensor:
            return network(*inputs(Window(*read)))

        found = run_windowed(part, torch.empty_like(whole), size, window, network.halo, REDRAW_STRIDE)
        torch.testing.assert_close(found, whole)
        short = run_windowed(part, torch.empty_like(whole), size, window, 0, REDRAW_STRIDE)
        for place, read in windows(size, window, network.halo, Window.whole(size)):
            drawn = network(*inputs(read), margins_of(place, read))
            torch.testing.assert_close(drawn, place.times(REDRAW_STRIDE).cut(whole))
    assert not torch.allclose(short, whole)


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    network = shaken(redraw())
    inputs = given(2, 3, batch=3)
    together = network(*inputs)
    for i in range(3):
        torch.testing.assert_close(network(*(each[i : i + 1] for each in inputs)), together[i : i + 1])


def test_every_input_counts() -> None:
    network = shaken(redraw())
    inputs = [each.requires_grad_() for each in given(2, 2)]
    network(*inputs).square().sum().backward()
    for each in inputs:
        assert each.grad is not None
        assert bool((each.grad.abs().amax(dim=(-2, -1)) > 0).all())
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_no_layer_looks_at_spatial_statistics() -> None:
    """Convolutions over positions and functions of one position; with zero-padding they are the same in every window."""
    known = (nn.Conv2d, nn.ModuleList, PositionNorm)
    leaves = [module for module in redraw(3, 2).modules() if not list(module.children())]
    assert {type(module) for module in leaves} <= set(known)
    for module in leaves:
        if isinstance(module, nn.Conv2d):
            assert module.stride == (1, 1)
            assert module.kernel_size in ((1, 1), (3, 3))
            assert module.padding == tuple(side // 2 for side in module.kernel_size)
            assert module.padding_mode == "zeros"


def test_a_constant_map_is_the_number() -> None:
    network = shaken(redraw())
    x_q, scalars, strength, realism, *noise = given(3, 4, batch=2)
    maps = (each.expand(-1, -1, 3, 4).contiguous() for each in (scalars, strength, realism))
    torch.testing.assert_close(network(x_q, *maps, *noise), network(x_q, scalars, strength, realism, *noise))
