"""Recipes: the shipped ones, and what a wrong one says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from networks import kilo_macs
from unquant.errors import OptionError
from unquant.networks.cdc import CdcConfig
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.networks.reverse import ReverseConfig
from unquant.train.ratevar.stage1 import Stage1Config
from unquant.train.ratevar.stage3 import Stage3Config
from unquant.train.recipe import LoopConfig, Recipe, Run, load_recipe


def test_shipped_recipes_load(configs: Path) -> None:
    paths = sorted(configs.glob("*.toml"))
    names = {
        "ratevar",
        "ratevar-2",
        "ratevar-cpu",
        "ratevar-smoke",
        "ratevar-smoke-reverse",
        "cdc-x",
        "cdc-epsilon",
        "cdc-cpu",
        "cdc-smoke",
        "av1",
        "av1-realism",
        "av1-smoke",
    }
    assert names <= {path.stem for path in paths}
    for path in paths:
        recipe = load_recipe(path)
        assert path.stem.startswith(recipe.family)
        assert type(recipe.model).from_dict(recipe.model.to_dict()) == recipe.model


def test_full_size_recipe_is_the_default_model(configs: Path) -> None:
    recipe = load_recipe(configs / "ratevar.toml")
    assert recipe.model == RatevarConfig()
    assert (recipe.loop.crop, recipe.loop.batch, recipe.loop.compile) == (256, 64, True)
    assert (recipe.loop.lr, recipe.loop.lr_end, recipe.table(Stage1Config).lpips_weight) == (5e-4, 1e-5, 600.0)


def test_full_size_cdc_recipes_differ_in_the_parameterisation_alone(configs: Path) -> None:
    x, epsilon = (load_recipe(configs / f"cdc-{name}.toml") for name in ("x", "epsilon"))
    assert x.model == CdcConfig()
    assert isinstance(epsilon.model, CdcConfig)
    turned = replace(
        epsilon.model,
        **{name: getattr(x.model, name) for name in ("parameterisation", "schedule", "train_steps", "steps")},
        denoiser=replace(epsilon.model.denoiser, residual_std=0.0),
    )
    assert turned == x.model
    assert (epsilon.model.schedule, epsilon.model.train_steps) == ("linear", 20000)
    assert x.loop == epsilon.loop


def test_full_size_model_keeps_its_budgets() -> None:
    model = Ratevar(RatevarConfig())
    x, q, pixels = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 1, 1), 64 * 64
    y, analysis = kilo_macs(lambda: model.g_a(x), pixels)
    _, entropy = kilo_macs(lambda: model.quantise(y, q, noise=False), pixels)
    _, synthesis = kilo_macs(lambda: model.g_s(y, q, q, q), pixels)
    assert analysis <= 60
    assert entropy <= 15
    assert synthesis <= 200
    # 20 M with the reverse network
    assert sum(p.numel() for p in model.parameters()) <= 16_500_000


def test_the_second_generation_keeps_its_budgets_and_fits_the_first(configs: Path) -> None:
    """Of the weights of ratevar-cpu.toml all of g_a and the first blocks of g_s have a place in it."""
    model, first = (load_recipe(configs / f"{name}.toml").model for name in ("ratevar-2", "ratevar-cpu"))
    assert isinstance(model, RatevarConfig)
    assert isinstance(first, RatevarConfig)
    assert model.synthesis_depth8 < first.synthesis_depth8
    depths = {"synthesis_depth16": first.synthesis_depth16, "synthesis_depth8": first.synthesis_depth8}
    assert replace(model, **depths, entropy=first.entropy, redraw=None, reverse=None) == first
    assert model.entropy.slices is not None
    net = Ratevar(model)
    assert net.f is not None
    reverse = sum(p.numel() for p in net.f.parameters())
    assert reverse <= 2_500_000
    assert sum(p.numel() for p in net.parameters()) - reverse <= 16_000_000
    y, q = torch.zeros(1, 320, 4, 4), torch.ones(1, 1, 1, 1)
    assert kilo_macs(lambda: net.quantise(y, q, noise=False), 64 * 64)[1] <= 15


def test_cpu_recipe_fixes_what_it_trains_with(configs: Path) -> None:
    """Its weights are trained: its numbers may not follow a change of the defaults."""
    model = load_recipe(configs / "ratevar-cpu.toml").model
    assert isinstance(model, RatevarConfig)
    text = (configs / "ratevar-cpu.toml").read_text()
    given = {line.partition("=")[0].strip() for line in text.splitlines() if "=" in line}
    inherited = {"latent", "q_index_min", "q_index_max", "tile", "default_realism", "entropy", "redraw", "reverse"}
    assert set(model.to_dict()) - given == inherited
    assert set(model.to_dict()["entropy"]) - given == {"scale_low", "scale_high", "scales", "slices", "entroformer"}
    assert (model.latent, model.q_index_min, model.q_index_max, model.tile) == (320, 16, 344, 64)
    assert (model.entropy.scale_low, model.entropy.scale_high, model.entropy.scales) == (0.12, 64.0, 64)


def test_missing_keys_take_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[loop]\ncrop = 128\nlr = 1\nlr_end = 0\n")
    assert load_recipe(path) == Recipe(loop=LoopConfig(crop=128, lr=1.0, lr_end=0.0))


def test_a_recipe_can_leave_the_reverse_network_out(tmp_path: Path) -> None:
    """The control of stage 3; its key has the name of a table in [model]."""
    path = tmp_path / "r.toml"
    path.write_text("[model.reverse]\nwidth = 32\n[stage3]\nreverse = false\n")
    recipe = load_recipe(path)
    assert recipe.table(Stage3Config) == Stage3Config(reverse=False)
    assert isinstance(recipe.model, RatevarConfig)
    assert recipe.model.reverse == ReverseConfig(width=32)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[model]\nlatents = 3", ("model", "latents")),
        ("[model.entropy]\nhypr = 3", ("model.entropy", "hypr")),
        ("[loop]\ncorp = 3", ("loop", "corp")),
        ("[stage1]\nlambda = 3", ("stage1", "lambda")),
        ("[lop]\ncrop = 3", ("lop",)),
        ("crop = 3", ("crop",)),
        ("loop = 3", ("loop", "table")),
        ("[model]\nentropy = 3", ("model.entropy", "table")),
        ("[loop]\nlr = 'fast'", ("loop.lr", "number", "'fast'")),
        ("[loop]\nbatch = 8.5", ("loop.batch", "valid integer")),
        ("[loop]\nbatch = true", ("loop.batch", "valid integer")),
        ("[loop]\ncompile = 1", ("loop", "compile", "bool")),
        ("[loop]\ncrop = 100", ("loop", "crop", "multiple of 16")),
        ("[loop]\nprecision = '16-mixed'", ("loop", "precision", "bf16-mixed")),
        ("[loop]\nlr_end = 1.0", ("loop", "lr_end")),
        ("[loop]\nema = 1.0", ("loop.ema: must be at least 0 and below 1, not 1.0",)),
        ("[loop]\nbatch = 0", ("loop", "batch")),
        ("[loop]\nclip = 0", ("loop", "clip")),
        ("[stage1]\nrealism_zero = 2", ("stage1.realism_zero: must be at least 0 and at most 1, not 2",)),
        ("[model.reverse]\ntraining = 'mean'", ("model.reverse", "training", "energy")),
        ("[model.reverse]\ntraining = 'mse'", ("model.reverse", "noise_channels")),
        ("[model.reverse]\nwide = 3", ("model.reverse", "wide")),
        ("[stage2]\nat_file = 2", ("stage2", "at_file")),
        ("[stage2]\ngroup = 0", ("stage2", "group")),
        ("[stage3]\nnets = 'squeeze'", ("stage3", "nets")),
        ("[stage3]\nvgg_crop = 16", ("stage3", "vgg_crop")),
        ("[stage3]\nlpips_weight = -1", ("stage3", "lpips_weight")),
        ("[stage3]\nrealism_zero = 1.8", ("stage3", "realism_zero")),
        ("[stage3]\nreverse_lr = 0", ("stage3", "reverse_lr")),
        ("[stage3]\nreverse = 1", ("stage3.reverse", "bool")),
        ("family = 3", ("family",)),
        ("family = 'jpeg'", ("family", "jpeg", "ratevar, cdc")),
        ("[diffusion]\nlambda0 = 1", ("unknown", "diffusion")),
        ("family = 'cdc'\n[stage1]\nlambda0 = 1", ("unknown", "stage1")),
        ("family = 'av1'\n[stage3]\nspread = 1", ("unknown", "stage3")),
        (
            "family = 'av1'\n[realism]\nrealism_zero = 0.2",
            ("realism.realism_zero", "at least 0.333", "0.2"),
        ),
        ("family = 'av1'\n[pairs]\npool = 0", ("pairs", "pool")),
        ("family = 'cdc'\n[diffusion]\nat_start = 2", ("diffusion", "at_start")),
        ("family = 'cdc'\n[model]\nparameterisation = 'v'", ("parameterisation",)),
        ("[loop\n", ("not a readable recipe",)),
    ],
)
def test_wrong_recipes_name_file_and_key(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(OptionError) as error:
        load_recipe(path)
    for name in (str(path), *names):
        assert name in str(error.value)


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nowhere"):
        load_recipe(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"time_budget": 0.0}, "time_budget: must be greater than 0, not 0.0"),
        ({"planned_total": -1.0}, "planned_total: must be greater than 0, not -1.0"),
        ({"devices": 0}, "devices: must be above 0, not 0"),
        ({"stage": 4}, "stage: must be at least 1 and at most 3, not 4"),
        ({"steps": 5}, "one of the two"),
        ({"time_budget": None}, "one of the two"),
        ({"time_budget": None, "steps": 0}, "steps: must be greater than 0, not 0"),
        ({"time_budget": None, "steps": 5, "planned_total": 9.0}, "planned total"),
        ({"planned_total": 9.0, "cooldown": True}, "planned total"),
    ],
)
def test_wrong_runs(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Run(**{"data": tmp_path, "out": tmp_path, "time_budget": 1.0, **wrong})
