"""Muon over the kernels of convolutions: shared memory, orthogonal updates, and the loop with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unquant.errors import OptionError
from unquant.train import muon
from unquant.train.muon import KernelMuon, is_kernel, orthogonal
from unquant.train.recipe import LoopConfig, Recipe


def kernel(memory_format: torch.memory_format, seed: int = 0) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(64, 96, 3, 3, generator=generator).contiguous(memory_format=memory_format)
    parameter = nn.Parameter(weight)
    parameter.grad = torch.randn(64, 96, 3, 3, generator=generator).contiguous(memory_format=memory_format)
    return parameter


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_update_is_orthogonal_and_as_large_as_one_of_adam(memory_format: torch.memory_format) -> None:
    weight = kernel(memory_format)
    before = weight.detach().clone()
    KernelMuon([weight], 0.0).step(0.01)
    update = (before - weight.detach()).flatten(1)
    # five steps of Newton-Schulz bring every singular value near 1, here times rate·0.2·√(longer side): the root mean
    # square of AdamW's updates is 0.2 to 0.4 of its rate
    values = torch.linalg.svdvals(update) / (0.2 * 0.01 * math.sqrt(96 * 9))
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.3


def test_the_layout_in_memory_does_not_matter() -> None:
    updated: list[torch.Tensor] = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        weight = kernel(memory_format)
        optimizer = KernelMuon([weight], 0.0)
        for _ in range(3):
            optimizer.step(0.01)
        updated.append(weight.detach().contiguous())
    # where the iteration runs in bfloat16 its rounding depends on the order of the columns
    assert float((updated[0] - updated[1]).abs().max()) < 0.01 * 0.2


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="compares with PyTorch's Muon, from 2.9 on")
def test_updates_and_momenta_are_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide, tall and square kernels, several of one shape, one of them without a gradient at first; both in float32."""
    monkeypatch.setattr(muon, "computes_in_bf16", lambda device: False)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 96, 3, 3), (128, 80, 1, 1), (64, 96, 3, 3), (64, 64, 1, 1), (64, 96, 3, 3)]
    kernels = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    matrices = [nn.Parameter(k.detach().flatten(1).clone()) for k in kernels]
    mine, theirs = KernelMuon(kernels, 0.1), torch.optim.Muon(matrices, 1.0, 0.1, adjust_lr_fn="match_rms_adamw")
    for step, lr in enumerate((0.02, 0.01, 0.005)):
        theirs.param_groups[0]["lr"] = lr
        for i, (k, matrix) in enumerate(zip(kernels, matrices, strict=True)):
            if step or i:
                k.grad = torch.randn(k.shape, generator=generator)
                matrix.grad = k.grad.flatten(1).clone()
        mine.step(lr)
        theirs.step()
        for k, matrix in zip(kernels, matrices, strict=True):
            torch.testing.assert_close(k.detach().flatten(1), matrix.detach(), rtol=0, atol=1e-5)
    # a checkpoint of PyTorch's goes on here
    again = KernelMuon(kernels, 0.1)
    again.load_state_dict(theirs.state_dict())
    for momentum, own in zip(again.momenta, mine.momenta, strict=True):
        torch.testing.assert_close(momentum, own)


def test_matrices_of_a_batch_do_not_see_each_other() -> None:
    x = torch.randn(3, 70, 64, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([orthogonal(x[i : i + 1]) for i in range(3)])
    together = orthogonal(x)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_momenta_of_other_kernels_are_refused() -> None:
    weight = kernel(torch.contiguous_format)
    other = KernelMuon([weight, weight], 0.0)
    for state in (other.state_dict(), {}):
        with pytest.raises(ValueError, match="momenta of other kernels"):
            KernelMuon([weight], 0.0).load_state_dict(state)


def test_only_wide_convolutions_that_are_no_output_are_kernels() -> None:
    assert is_kernel(nn.Conv2d(64, 64, 3), "g_s.blocks8.0.conv1")
    assert not is_kernel(nn.Conv2d(64, 63, 3), "g_s.blocks8.0.conv1")
    assert not is_kernel(nn.Conv2d(64, 64, 3, groups=64), "g_s.blocks8.0.conv1")
    assert not is_kernel(nn.Conv2d(64, 192, 3), "g_s.head")
    assert not is_kernel(nn.Conv2d(64, 128, 1), "g_s.blocks8.0.film.proj")
    assert not is_kernel(nn.Linear(64, 64), "linear")


def test_unknown_optimizers_are_refused() -> None:
    with pytest.raises(OptionError, match="optimizer: must be 'adamw' or 'muon', not 'sgd'"):
        LoopConfig(optimizer="sgd")


@pytest.fixture(scope="module")
def muon_recipe(smoke_recipe: Recipe) -> Recipe:
    """The smoke recipe, wide enough at 1/8 that its blocks have kernels."""
    model = replace(smoke_recipe.model, synthesis_width8=64)
    return replace(smoke_recipe, model=model, loop=replace(smoke_recipe.loop, optimizer="muon", batch=4))


@pytest.mark.slow
def test_the_loop_learns_resumes_and_survives_a_gradient_that_is_not_finite(
    muon_recipe: Recipe, run_steps: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_steps(muon_recipe, tmp_path, 40)
    assert done.after["loss"] < done.before["loss"]
    trainer = done.trainer
    kernels = trainer.optimisers.muon.kernels
    names = {name for name, p in trainer.model.named_parameters() if any(p is kernel for kernel in kernels)}
    assert {"g_s.blocks8.0.conv1.weight", "g_s.blocks16.0.conv2.weight"} <= names
    assert not [name for name in names if "film" in name or "head" in name or "linear" in name]
    everything = sum(p.numel() for p in trainer.model.parameters())
    optimised = [p for group in trainer.optimisers.adam.param_groups for p in group["params"]] + kernels
    assert sum(p.numel() for p in optimised) == everything

    again = run_steps(muon_recipe, tmp_path, 0, resume=True).trainer
    for mine, theirs in zip(again.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    momenta = [t.optimisers.muon.state_dict()["state"] for t in (again, trainer)]
    assert momenta[0].keys() == momenta[1].keys() == set(range(len(names)))
    assert all(torch.equal(momenta[0][i]["momentum_buffer"], momenta[1][i]["momentum_buffer"]) for i in momenta[0])

    weights = [p.detach().clone() for p in trainer.model.parameters()]
    real = trainer.objective.forward
    monkeypatch.setattr(trainer.objective, "forward", lambda *a: {**(t := real(*a)), "loss": t["loss"] * math.nan})
    assert math.isnan(trainer.step()["grad"])
    assert all(torch.equal(p, w) for p, w in zip(trainer.model.parameters(), weights, strict=True))
