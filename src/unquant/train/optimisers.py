"""What makes the steps: AdamW, and Muon for the kernels where the recipe says so."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unquant.train.muon import KernelMuon, is_kernel
from unquant.train.recipe import LoopConfig

__all__ = ["Optimisers"]


class Optimisers:
    """AdamW over what a stage trains; with "muon" in the recipe over all but the kernels of the model's networks.

    groups: as `Objective.parameter_groups` gives them; those with a rate of their own, as f may have and what is trained
    beside the model, stay with AdamW.
    """

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]], loop: LoopConfig) -> None:
        self.loop = loop
        self.trained: list[Tensor] = [p for group in groups for p in group["params"]]
        self.muon: KernelMuon | None = None
        if loop.optimizer == "muon":
            plain = {p for group in groups if group["lr_scale"] == 1.0 for p in group["params"]}
            kernels = [module.weight for name, module in model.named_modules() if is_kernel(module, name)]
            kernels = [kernel for kernel in kernels if kernel in plain]
            chosen = set(kernels)
            groups = [{**group, "params": [p for p in group["params"] if p not in chosen]} for group in groups]
            self.muon = KernelMuon(kernels, loop.weight_decay)
        self.adam = torch.optim.AdamW(groups, loop.lr, (0.9, 0.98), weight_decay=loop.weight_decay, fused=True)
        self.lr_scales = [float(group["lr_scale"]) for group in groups]
        self._wrapped: Any = self.adam

    def set_up(self, fabric: Any, module: nn.Module) -> nn.Module:
        """A module that these train, as Lightning Fabric wraps it for its devices and precision, and AdamW with it."""
        wrapped, self._wrapped = fabric.setup(module, self.adam)
        return wrapped

    def step(self, rate: float) -> Tensor:
        """One step by the gradients that are there, which then go; returns their norm before clipping, ().

        Where that is not finite, nothing changes. With AdamW it waits for nothing on the device.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.loop.clip)
        for group, scale in zip(self.adam.param_groups, self.lr_scales, strict=True):
            group["lr"] = rate * scale
        # the fused step leaves weights and moments alone where this is 1, on the device; the norm is that of all devices
        self.adam.found_inf = (~torch.isfinite(norm)).float()  # pyright: ignore[reportAttributeAccessIssue]
        self._wrapped.step()
        self._wrapped.zero_grad()
        if self.muon is not None:
            if torch.isfinite(norm):
                self.muon.step(rate)
            self.muon.zero_grad()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Moments and momenta, for a checkpoint."""
        return {"optimizer": self.adam.state_dict(), "muon": self.muon.state_dict() if self.muon is not None else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse; goes on with the tensors that it is given. Raises ValueError for a state of other parameters."""
        self.adam.load_state_dict(state["optimizer"])
        for group in self.adam.param_groups:  # the recipe holds, not what the state was trained with
            group["weight_decay"] = self.loop.weight_decay
        if self.muon is not None:
            self.muon.load_state_dict(state["muon"])
