"""The step to half the resolution: a convolution of any size, also where a kernel of torch fails."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unquant.nn.blocks import Down


@pytest.mark.parametrize("height", [1, 2, 5, 16])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7])
def test_it_is_the_convolution(height: int, width: int) -> None:
    torch.manual_seed(0)
    down, x = Down(6).double(), torch.randn(2, 6, height, width, dtype=torch.float64)
    expected = F.conv2d(x, down.weight, down.bias, stride=2, padding=1)
    torch.testing.assert_close(down(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [12, 160])
@pytest.mark.parametrize("size", [(10, 1), (10, 2), (32, 2), (2, 2), (2, 10)])
def test_what_nobody_wrote_is_not_read(channels: int, size: tuple[int, int]) -> None:
    """In bfloat16, with NaN in all memory that was freed."""
    torch.manual_seed(0)
    down = Down(channels).to(memory_format=torch.channels_last).requires_grad_(False)
    x = torch.randn(1, channels, *size).contiguous(memory_format=torch.channels_last)
    expected = down(x)
    for _ in range(10):
        freed = [torch.full((n,), torch.nan, dtype=torch.bfloat16) for n in (64, 256, 1000, 4000, 16_000, 60_000)]
        del freed
        with torch.autocast("cpu", torch.bfloat16):
            out = down(x)
        torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.03)
