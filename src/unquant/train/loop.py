"""The training loop: devices and precision by Lightning Fabric, bounded by a wall-clock budget, resumable, detachable.

A run's folder holds `metrics.jsonl` (one JSON object a line), `export/` (fp16 EMA weights in shards, see
`unquant.weights`), `samples/` (pictures), `checkpoint.ckpt` (everything needed to go on) and, put there by the user,
`orders.json`: `{"stop": true}` ends the run after an export. New *.tar shards in the data folder are picked up as it runs.
"""

from __future__ import annotations

import json
import math
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from unquant.errors import OptionError, TrainingError
from unquant.models.ratevar import Ratevar, RatevarConfig
from unquant.nn.transforms import LATENT_STRIDE, klt_basis
from unquant.perceptual import LPIPS, load_lpips
from unquant.train.data import Photos
from unquant.train.stage1 import Stage1Config, draw_conditions, train_step
from unquant.train.validation import save_samples, validate
from unquant.weights import read_shards, read_weights, write_shards

__all__ = ["LoopConfig", "Recipe", "Run", "load_recipe", "train"]


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How a run is driven: crop size and batch, AdamW and its cosine, EMA, intervals in seconds."""

    crop: int = 256
    batch: int = 64
    lr: float = 5e-4
    lr_end: float = 1e-5
    warmup_steps: int = 200
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    precision: str = "bf16-mixed"
    compile: bool = False
    seed: int = 1
    log_every: float = 15.0
    validate_every: float = 300.0
    export_every: float = 180.0
    validation_crops: int = 32


@dataclass(frozen=True)
class Recipe:
    """A training recipe: the model, the loop, the loss. Read from a TOML file by `load_recipe`."""

    model: RatevarConfig = field(default_factory=RatevarConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)


@dataclass(frozen=True)
class Run:
    """Where and how long: folders, wall-clock budget and planned total in seconds, what to start from.

    init: "klt", "random" or the path of an export folder or weights file. planned_total: the length of the learning-rate
    cosine over several runs; None for this run's own budget. metrics: folder of the LPIPS weights.
    """

    data: Path
    out: Path
    time_budget: float
    planned_total: float | None = None
    init: str = "klt"
    resume: bool = False
    metrics: Path | None = None
    device: str = "auto"
    devices: int = 1


def load_recipe(path: Path) -> Recipe:
    """Read a recipe: tables [model] (with [model.entropy]), [loop], [stage1]. Raises OptionError naming file and key."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise OptionError(f"{path}: not a readable recipe: {e}") from e
    parts: dict[str, Any] = {}
    for name, cls in (("loop", LoopConfig), ("stage1", Stage1Config)):
        table = values.pop(name, {})
        if unknown := sorted(set(table) - {f.name for f in fields(cls)}):
            raise OptionError(f"{path}: unknown keys in [{name}]: {', '.join(unknown)}")
        parts[name] = cls(**table)
    model = RatevarConfig.from_dict(values.pop("model", {}))
    if values:
        raise OptionError(f"{path}: unknown tables: {', '.join(sorted(values))}")
    return Recipe(model=model, **parts)


def _ema_update(decay: float) -> Any:
    def update(ema: list[Tensor], current: list[Tensor], step: Tensor | int) -> None:
        # short memory at the start, so that the average forgets the initial weights
        d = min(decay, (1 + int(step)) / (10 + int(step)))
        torch._foreach_lerp_(ema, current, 1 - d)  # pyright: ignore[reportPrivateUsage]

    return update


class _Trainer:
    def __init__(self, recipe: Recipe, run: Run) -> None:
        try:
            from lightning.fabric import Fabric
        except ImportError:
            raise TrainingError("training needs Lightning: pip install 'unquant[train]'") from None
        loop = recipe.loop
        self.recipe, self.run = recipe, run
        self.fabric = Fabric(accelerator=run.device, devices=run.devices, precision=loop.precision)  # pyright: ignore[reportArgumentType]
        self.fabric.launch()
        rank = self.fabric.global_rank
        self.fabric.seed_everything(loop.seed + rank, verbose=False)
        self.generator = torch.Generator().manual_seed(loop.seed + rank)
        self.device = self.fabric.device
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self.photos = Photos(run.data, self.device)
        self.lpips: LPIPS | None = None
        if recipe.stage1.lpips_weight:
            net: Any = recipe.stage1.lpips_net
            self.lpips = load_lpips(net, run.metrics).to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        model = Ratevar(recipe.model)
        self.position, self.steps, self.crops_seen = self._initialise(model), 0, 0
        self.start_position = self.position
        model = model.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.ema = AveragedModel(model, multi_avg_fn=_ema_update(loop.ema)).requires_grad_(False)
        self.plain = model
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=loop.lr, betas=(0.9, 0.98), weight_decay=loop.weight_decay, fused=True
        )
        compiled: Any = torch.compile(model) if loop.compile else model
        self.model, self.optimizer = self.fabric.setup(compiled, optimizer)
        self.restart = 0
        self.checkpoint = run.out / "checkpoint.ckpt"
        if run.resume and self.checkpoint.is_file():
            self._load_checkpoint()

    def _initialise(self, model: Ratevar) -> float:
        """Load or make the starting weights; returns the schedule position in seconds that they stand at."""
        init, position = self.run.init, 0.0
        if (
            self.run.resume
            and not (self.run.out / "checkpoint.ckpt").is_file()
            and (self.run.out / "export/ema.json").is_file()
        ):
            init = str(self.run.out / "export")
        if init == "klt":
            crops = [self.photos.crops(64, 128, self.generator) for _ in range(32)]
            patches = torch.cat(
                [torch.nn.functional.pixel_unshuffle(c, LATENT_STRIDE).permute(0, 2, 3, 1).flatten(0, 2) for c in crops]
            )
            model.start_from(*klt_basis(patches.cpu(), self.recipe.model.latent))
        elif init != "random":
            path = Path(init)
            weights = read_shards(path) if path.is_dir() else read_weights(path)
            state = {k: v.float() for k, v in weights.tensors.items() if not k.startswith("tables.")}
            try:
                model.load_state_dict(state)
            except RuntimeError as e:
                raise TrainingError(f"{path}: these weights do not fit the recipe's model: {e}") from None
            position = float(weights.training.get("schedule_seconds", 0.0))
        return position

    def _load_checkpoint(self) -> None:
        state: dict[str, Any] = {"model": self.model, "ema": self.ema, "optimizer": self.optimizer}
        rest = self.fabric.load(self.checkpoint, state, weights_only=False)
        self.position = self.start_position = float(rest["position"])
        self.steps, self.crops_seen = int(rest["steps"]), int(rest["crops"])
        self.restart = self.steps
        self.generator.manual_seed(self.recipe.loop.seed + self.steps)

    def save(self) -> None:
        """Write the checkpoint and the fp16 EMA export, each complete or not at all."""
        if self.fabric.is_global_zero:
            training = {
                "stage": 1,
                "steps": self.steps,
                "crops": self.crops_seen,
                "crop": self.recipe.loop.crop,
                "schedule_seconds": self.position,
                "planned_seconds": self.planned,
            }
            export = {k.removeprefix("module."): v for k, v in self.ema.state_dict().items() if k != "n_averaged"}
            write_shards(self.run.out / "export", "ratevar", self.recipe.model.to_dict(), export, training)
        partial = self.checkpoint.with_name("checkpoint.part")
        state: dict[str, Any] = {"model": self.model, "ema": self.ema, "optimizer": self.optimizer}
        self.fabric.save(partial, {**state, "position": self.position, "steps": self.steps, "crops": self.crops_seen})
        if self.fabric.is_global_zero:
            partial.replace(self.checkpoint)

    @property
    def planned(self) -> float:
        return self.run.planned_total or self.start_position + self.run.time_budget

    def learning_rate(self) -> float:
        """Cosine over the planned total, with a short warm-up after every start."""
        loop = self.recipe.loop
        progress = min(1.0, self.position / self.planned)
        rate = loop.lr_end + 0.5 * (loop.lr - loop.lr_end) * (1 + math.cos(math.pi * progress))
        return rate * min(1.0, (self.steps - self.restart + 1) / loop.warmup_steps)

    def step(self) -> dict[str, Tensor]:
        """One optimisation step; returns detached loss terms."""
        loop = self.recipe.loop
        x = self.photos.crops(loop.batch, loop.crop, self.generator)
        draw = draw_conditions(
            loop.batch, loop.crop // LATENT_STRIDE, self.recipe.model, self.recipe.stage1, self.generator, self.device
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with self.fabric.autocast():
            terms = train_step(self.model, x, draw, self.recipe.stage1, self.lpips)  # pyright: ignore[reportArgumentType]
        self.fabric.backward(terms.loss)
        norm = self.fabric.clip_gradients(self.model, self.optimizer, max_norm=loop.clip, error_if_nonfinite=False)
        if bool(torch.isfinite(terms.loss)) and (norm is None or bool(torch.isfinite(norm))):
            self.optimizer.step()
            self.ema.update_parameters(self.plain)
        self.optimizer.zero_grad()
        self.steps += 1
        self.crops_seen += loop.batch * self.fabric.world_size
        values = {"loss": terms.loss, "bpp": terms.bpp, "distortion": terms.distortion, "lpips": terms.lpips}
        return {k: v.detach() for k, v in values.items()} | ({"grad": norm} if norm is not None else {})

    def validate(self) -> dict[str, float]:
        """Held-out and training crops through the EMA weights; also writes a picture of a few of them."""
        model: Any = self.ema.module
        model.eval()
        row = validate(model, self.photos, self.recipe.loop.crop, self.recipe.loop.validation_crops, self.lpips)
        save_samples(model, self.photos, self.recipe.loop.crop, self.run.out / "samples" / f"{self.steps:07d}.png")
        return row


def _stop_ordered(folder: Path) -> bool:
    path = folder / "orders.json"
    try:
        return path.is_file() and bool(json.loads(path.read_text()).get("stop"))
    except (OSError, json.JSONDecodeError, AttributeError):
        return False  # half-written orders are read again at the next look


def train(recipe: Recipe, run: Run, echo: Any = print) -> Path:
    """Run stage 1 for `run.time_budget` seconds of wall clock, or until ordered to stop. Returns the export folder.

    echo: called with one line of text per log interval. Raises TrainingError, OptionError, ModelMissing or InputError.
    """
    if run.time_budget <= 0:
        raise OptionError(f"the time budget must be positive, got {run.time_budget} s")
    begin = time.monotonic()
    run.out.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(recipe, run)
    loop = recipe.loop
    main = trainer.fabric.is_global_zero
    log = (run.out / "metrics.jsonl").open("a") if main else None

    def write(kind: str, values: dict[str, Any]) -> None:
        if log is None:
            return
        row = {
            "kind": kind,
            "step": trainer.steps,
            "seconds": round(trainer.position, 1),
            "crops": trainer.crops_seen,
            **values,
        }
        log.write(json.dumps(row) + "\n")
        log.flush()
        echo(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))

    if main:
        write("validation", trainer.validate())
    window: list[dict[str, Tensor]] = []
    logged = validated = exported = time.monotonic()
    while True:
        window.append(trainer.step())
        now = time.monotonic()
        trainer.position = trainer.start_position + now - begin
        done = now - begin >= run.time_budget
        if now - logged >= loop.log_every or done:
            write(
                "train",
                {**_means(window), "lr": trainer.learning_rate(), "crops_s": len(window) * loop.batch / (now - logged)},
            )
            window, logged = [], now
            if fresh := trainer.photos.refresh():
                write("data", {"new_shards": fresh, "images": len(trainer.photos)})
            done = done or _stop_ordered(run.out)
        done = bool(trainer.fabric.broadcast(done)) if trainer.fabric.world_size > 1 else done
        if now - exported >= loop.export_every or done:
            trainer.save()
            exported = time.monotonic()
        if (now - validated >= loop.validate_every or done) and main:
            write("validation", trainer.validate())
            validated = time.monotonic()
        if done:
            return run.out / "export"


def _means(window: Iterable[dict[str, Tensor]]) -> dict[str, float]:
    rows = list(window)
    return {k: float(torch.stack([r[k].float() for r in rows if k in r]).nanmean()) for k in rows[0]} if rows else {}
