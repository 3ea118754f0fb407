"""The discriminator learns what is real, and each of the two losses has a gradient of its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unquant.train.adversary import Discriminator, adversarial_losses


def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise as photographs, and what a file might say of them."""
    real = 2 * torch.rand(4, 3, 64, 64, generator=generator) - 1
    return real, torch.randn(4, 8, 4, 4, generator=generator)


def test_one_backward_pass_serves_both() -> None:
    torch.manual_seed(0)
    judge = Discriminator(8, 4)
    real, y_file = batch(torch.Generator().manual_seed(1))
    drawn = torch.cat([F.avg_pool2d(real, 3, 1, 1), real.flip(-1)]).requires_grad_()
    generator_loss, hinge = adversarial_losses(judge, real, drawn, y_file)
    assert generator_loss.shape == (8,)
    generator_loss.sum().backward()
    assert drawn.grad is not None
    assert drawn.grad.any()
    assert all(p.grad is None for p in judge.parameters())
    drawn.grad = None
    hinge.backward()
    assert drawn.grad is None
    assert all(p.grad is not None and p.grad.any() for n, p in judge.named_parameters() if n.endswith("0"))


@pytest.mark.slow
def test_it_tells_what_was_smoothed_from_what_was_not() -> None:
    torch.manual_seed(0)
    judge, generator = Discriminator(8, 8), torch.Generator().manual_seed(1)
    adam = torch.optim.Adam(judge.parameters(), 2e-3, (0.0, 0.999))  # 0.9: it leaps once its gradients are near 0
    hinges: list[float] = []
    for _ in range(60):
        real, y_file = batch(generator)
        _, hinge = adversarial_losses(judge, real, F.avg_pool2d(real, 3, 1, 1), y_file)
        adam.zero_grad()
        hinge.backward()
        adam.step()
        hinges.append(float(hinge.detach()))
    assert hinges[0] > 1.8
    assert hinges[-1] < 0.5 * hinges[0]
    real, y_file = batch(generator)
    judge.eval()
    assert bool(
        (judge(real, y_file).mean((1, 2, 3)) > judge(F.avg_pool2d(real, 3, 1, 1), y_file).mean((1, 2, 3))).all()
    )


def test_the_norm_of_every_layer_is_bounded() -> None:
    torch.manual_seed(0)
    judge = Discriminator(8, 4)
    with torch.no_grad():
        for p in judge.parameters():
            p.mul_(100)
    for _ in range(30):  # power iterations
        judge(*batch(torch.Generator().manual_seed(1)))
    for layer in (judge.condition, *judge.blocks, judge.last, judge.head):
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) < 1.05
