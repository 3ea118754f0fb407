"""Networks run in windows with a halo give what they give in one piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from networks import shaken
from unquant.codecs.latent import AnyLatentCodec, LatentCodec
from unquant.codecs.windows import Kept, Window, blocks, margins_of, run_windowed, spans, windows
from unquant.nn.redraw import RedrawSizes
from unquant.nn.transforms import Analysis, Synthesis


@given(st.integers(1, 300), st.integers(1, 100), st.integers(0, 40))
def test_spans(length: int, window: int, halo: int) -> None:
    covered: list[int] = []
    for start, stop, read_start, read_stop in spans(length, window, halo):
        covered += range(start, stop)
        assert stop - start <= window
        assert read_start == max(0, start - halo)
        assert read_stop == min(length, stop + halo)
    assert covered == list(range(length))


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("window", [1, 4, 5, 100])
def test_a_convolution_in_windows(scale: int, window: int) -> None:
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(1, 2, 13, 11, generator=generator, dtype=torch.float64)
    layer = nn.Conv2d(2, 2 * scale * scale, 5, padding=2, dtype=torch.float64).requires_grad_(False)
    reads: list[tuple[int, int]] = []

    def network(top: int, bottom: int, left: int, right: int) -> Tensor:
        reads.append((bottom - top, right - left))
        return nn.functional.pixel_shuffle(layer(plane[..., top:bottom, left:right]), scale)

    out = torch.full((1, 2, 13 * scale, 11 * scale), torch.nan, dtype=torch.float64)
    whole = network(0, 13, 0, 11)
    torch.testing.assert_close(run_windowed(network, out, (13, 11), window, 2, scale), whole, rtol=0, atol=1e-12)
    assert max(reads[1:]) <= (window + 4, window + 4)
    clipped = run_windowed(network, out.clone(), (13, 11), window, 1, scale)
    assert torch.allclose(clipped, whole) == (window == 100)  # so a halo that is too small is seen


def test_blocks_are_made_once_and_kept_while_they_are_needed() -> None:
    """Parts that look 1 around a block: what is kept is two rows and a block of the next one at most."""
    whole, plane = Window.whole((28, 10)), torch.arange(2.0 * 56 * 20).reshape(1, 2, 56, 20)
    made: list[Window] = []

    def make(block: Window) -> Tensor:
        made.append(block)
        return block.times(2).cut(plane).clone()

    parts = [block.grown(1).within(whole) for block in blocks(whole, 4)]
    kept, most = Kept(make, blocks(whole, 4), parts, 2), 0
    for part in parts:
        assert torch.equal(kept.cut(part), part.times(2).cut(plane))
        most = max(most, len(kept.held))
    assert len(parts) == 21
    assert sorted(made) == sorted(blocks(whole, 4))
    assert 3 < most <= 8
    assert not kept.held


# --- the halo of g_a and g_s is their receptive field ---------------------------------------------------------------


def reach(changed: Tensor, centre: int, scale: int) -> tuple[int, int]:
    """How many positions before and after the centre the change is felt, along the last axis."""
    columns = changed.abs().amax(dim=(0, 1, 2)).unflatten(0, (-1, scale)).amax(1).nonzero().flatten()
    return centre - int(columns.min()), int(columns.max()) - centre


@pytest.mark.parametrize(("depth8", "depth16"), [(0, 1), (1, 0), (1, 1), (2, 1), (3, 2)])
def test_halo_of_the_analysis(depth8: int, depth16: int) -> None:
    g_a = shaken(Analysis(4, 6, depth8, 6, depth16)).requires_grad_(False)
    x = torch.rand(1, 3, 16, 16 * 31, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[..., 16 * 15 : 16 * 16] += 0.5
    assert reach(g_a(other) - g_a(x), 15, 1) == (g_a.halo, g_a.halo)


@pytest.mark.parametrize(("depth16", "depth8"), [(0, 1), (1, 0), (1, 1), (1, 2), (2, 3), (1, 4)])
def test_halo_of_the_synthesis(depth16: int, depth8: int) -> None:
    g_s = shaken(Synthesis(4, 6, depth16, 6, depth8, 4)).float().requires_grad_(False)
    y = torch.randn(1, 4, 1, 31, generator=torch.Generator().manual_seed(1)) * 16
    other = y.clone()
    other[..., 15] += 8
    scalar = torch.ones(1, 1, 1, 1)
    felt = reach(g_s(other, scalar, scalar, scalar) - g_s(y, scalar, scalar, scalar), 15, 16)
    assert felt == (g_s.halo, g_s.halo)
    sizes = RedrawSizes(width8=6, depth8=1, width16=6, depth16=1, width2=4, cond=4)
    with_redraw = Synthesis(4, 6, depth16, 6, depth8, 4, sizes)
    assert with_redraw.redraw is not None
    assert with_redraw.halo == g_s.halo + with_redraw.redraw.halo


@pytest.mark.parametrize(("depth16", "depth8"), [(0, 1), (1, 1), (2, 3)])
def test_a_draft_in_windows_that_are_told_their_margins(depth16: int, depth8: int) -> None:
    g_s = shaken(Synthesis(4, 6, depth16, 5, depth8, 4)).float().requires_grad_(False)
    generator, size = torch.Generator().manual_seed(1), (9, 13)
    y = torch.randn(1, 4, *size, generator=generator) * 16
    maps = torch.rand(3, 1, 1, *size, generator=generator)
    whole = g_s.draft(y, *maps)
    torch.testing.assert_close(g_s(y, *maps), whole)
    for halo, right in ((g_s.draft_halo, True), (1, False)):
        found = torch.empty_like(whole)
        for place, read in windows(size, 4, halo, Window.whole(size)):
            drawn = g_s.draft(read.cut(y), *(read.cut(plane) for plane in maps), margins_of(place, read))
            place.times(16).cut(found).copy_(drawn)
        away = float((found - whole).abs().max() / whole.abs().max())
        assert away < 1e-5 if right else away > 1e-3


# --- in the codec ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("window", [3, 5, 16])
def test_the_codec_in_windows(
    single: AnyLatentCodec, photo: Image.Image, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.asarray(photo.crop((100, 60, 395, 270)))
    q_map = np.random.default_rng(0).integers(16, 345, (14, 19))
    data = single.encode(photo.crop((100, 60, 395, 270)), q_index=q_map)
    y, image = single.analyse(picture), np.asarray(single.decode(data), int)
    monkeypatch.setattr(LatentCodec, "window", window)
    torch.testing.assert_close(single.analyse(picture), y, rtol=1e-4, atol=2e-3)
    assert np.abs(np.asarray(single.decode(data), int) - image).max() <= 1
    for network in (single.model.g_a, single.model.g_s, single.model.f):
        if network is not None:
            monkeypatch.setattr(network, "draft_halo" if hasattr(network, "draft_halo") else "halo", 0)
    assert not torch.allclose(single.analyse(picture), y, rtol=1e-4, atol=2e-2)
    assert np.abs(np.asarray(single.decode(data), int) - image).max() > 2
