"""Stage 3: f and g_s against the original, with a random AlexNet for the features: what it weighs is no matter here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import changed, parameters
from torch import Tensor

from unquant.codecs.ratevar import RatevarCodec
from unquant.errors import ModelMissing, TrainingError
from unquant.networks.reverse import ReverseConfig
from unquant.nn.redraw import RedrawSizes
from unquant.perceptual import DISTS, LPIPS
from unquant.train.energy import feature_energy_score
from unquant.train.loop import train
from unquant.train.ratevar.stage3 import Stage3, Stage3Config
from unquant.train.recipe import Recipe, Run
from unquant.train.structure import StructureTerms, squared_of_mean
from unquant.train.trainer import Trainer
from unquant.weights_file import join_shards, read_shards, read_weights

GOLDEN = Path(__file__).parents[2] / "golden"


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- the parts of the loss -------------------------------------------------------------------------------------------


def test_the_score_of_features_is_least_for_their_own_distribution() -> None:
    """Two taps; candidates are the right samples, a point in the middle, samples twice as wide, samples off by one."""
    first, second, target = (
        [normal(8, 6, n, n, seed=s), normal(8, 4, n // 2, n // 2, seed=9 + s)] for s, n in ((0, 16), (1, 16), (2, 16))
    )

    def score(scale: float, shift: float) -> float:
        one, other = ([scale * tap + shift for tap in taps] for taps in (first, second))
        value = feature_energy_score(one, other, target, 1, 4)
        assert value.shape == (8,)
        return float(value.mean())

    others = [score(0, 0), score(2, 0), score(1, 1)]
    assert score(1, 0) < 0.95 * min(others)
    assert feature_energy_score(target, target, target, 0, 4).tolist() == pytest.approx([0] * 8, abs=1e-3)


def test_squared_error_of_the_mean_does_not_punish_the_spread() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16).expand(4000, 3, 16, 16)
    first, second = (x + 0.02 + 0.1 * torch.randn_like(x) for _ in range(2))
    squared = squared_of_mean(first, second, x)
    # a single sample has (0.02² + 0.1²)
    assert float(squared.mean()) / 255**2 == pytest.approx(0.02**2, rel=0.05)


def trainable(module: torch.nn.Module) -> set[str]:
    return {name.split(".")[0] for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, {"f", "g_s"}),
        ({"energy_weight": 0.0}, {"f", "g_s"}),
        ({"lpips_weight": 0.0}, {"f", "g_s"}),
        ({"reverse": False}, {"g_s"}),
        ({"realism_zero": 1.0}, {"f", "g_s"}),
        ({"q_map": 1.0}, {"f", "g_s"}),
        ({"adversarial_weight": 10.0, "discriminator_width": 4}, {"f", "g_s", "companion"}),
    ],
)
def test_what_the_gradient_reaches(
    changes: dict[str, Any], reached: set[str], stage2_run: Callable[..., Any], pieces: Path
) -> None:
    trainer = stage2_run("energy").trainer
    model = type(trainer.model)(trainer.model.config)
    model.load_state_dict(trainer.model.state_dict())
    torch.manual_seed(0)
    stage = Stage3(model, Stage3Config(nets="alex", **changes), {"alex": LPIPS("alex")})
    draw = stage.draw(4, 4, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert draw.zeros == min(3, 4 * stage.config.realism_zero)
    terms = stage(trainer.photos.crops(4, 64, torch.Generator().manual_seed(1)), draw)
    assert torch.isfinite(terms["loss"])
    terms["loss"].backward()
    assert trainable(model) | ({"companion"} if stage.companion and trainable(stage.companion) else set()) == reached
    assert not any(p.requires_grad for p in stage.structure.lpips.parameters())


@pytest.mark.slow
def test_a_redraw_draws_the_samples(stage2_run: Callable[..., Any]) -> None:
    """Without a reverse network: two samples of each image, by fresh noise, whose losses reach g_s alone."""
    trainer = stage2_run("energy").trainer
    sizes = RedrawSizes(width8=6, depth8=1, width16=7, depth16=1, width2=4, cond=3)
    torch.manual_seed(0)
    model = type(trainer.model)(replace(trainer.model.config, reverse=None, redraw=sizes))
    for parameter in model.g_s.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    stage = Stage3(model, Stage3Config(nets="alex"), {"alex": LPIPS("alex")})
    drawn: list[Tensor] = []
    model.g_s.register_forward_hook(lambda module, given, out: drawn.append(out))
    draw = stage.draw(4, 4, torch.Generator().manual_seed(0), torch.device("cpu"))
    stage(trainer.photos.crops(4, 64, torch.Generator().manual_seed(1)), draw)["loss"].backward()
    first, second = drawn[0][draw.zeros :].chunk(2)
    assert len(first) == 4 - draw.zeros
    assert float((first - second).detach().abs().mean()) > 1e-3
    assert trainable(model) == {"g_s"}


@pytest.mark.slow
def test_a_joint_f_is_part_of_the_decoder(stage2_run: Callable[..., Any]) -> None:
    """It stands before every decode, once for each image, told ρ; the samples are the redraw's."""
    trainer = stage2_run("energy").trainer
    sizes = RedrawSizes(width8=6, depth8=1, width16=7, depth16=1, width2=4, cond=3)
    reverse = ReverseConfig("joint", 16, 1, 0, sampler="deterministic")
    torch.manual_seed(0)
    model = type(trainer.model)(replace(trainer.model.config, reverse=reverse, redraw=sizes))
    for parameter in [*model.g_s.parameters(), *model.f.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    told: list[list[float]] = []
    model.f.register_forward_hook(lambda module, given, out: told.append(given[4].flatten().tolist()))
    seen: list[Tensor] = []
    model.g_s.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x = trainer.photos.crops(4, 64, torch.Generator().manual_seed(1))
    for config, reached in (
        (Stage3Config(nets="alex"), {"f", "g_s"}),
        (Stage3Config(nets="alex", reverse=False), {"g_s"}),
    ):
        stage = Stage3(model, config, {"alex": LPIPS("alex")})
        assert len(stage.parameter_groups()) == len(reached)
        draw = stage.draw(4, 4, torch.Generator().manual_seed(0), torch.device("cpu"))
        model.zero_grad()
        stage(x, draw)["loss"].backward()
        assert trainable(model) == reached
        assert told.pop() == [0.0, 1.0, 1.0, 1.0]
        _, side = model.encode(x, draw.log2_q)
        y = model.restored(side, torch.tensor([0.0, 1.0, 1.0, 1.0]).view(4, 1, 1, 1))
        torch.testing.assert_close(seen.pop(), torch.cat([y, y[1:]]), rtol=1e-4, atol=1e-4)
        told.clear()
    row = stage.validate(model, trainer.photos, 64, 2)
    assert [ends[0] for ends in told] == [0.0, 1.0] * 3
    assert row["energy_180"] > 0
    without = type(model)(replace(model.config, redraw=None))
    with pytest.raises(TrainingError, match="whose g_s ends in a redraw"):
        Stage3(without, Stage3Config(nets="alex"), {"alex": LPIPS("alex")})


@pytest.mark.slow
def test_vgg_sees_a_part_of_every_crop(stage2_run: Callable[..., Any]) -> None:
    """Networks of VGG features see 32×32 of the pixels at the corner drawn, AlexNet sees all; both at the shift drawn."""
    trainer = stage2_run("energy").trainer
    torch.manual_seed(0)
    networks = {"alex": LPIPS("alex"), "vgg": LPIPS("vgg")}
    judge = DISTS()
    stage = Stage3(trainer.ema.module, Stage3Config(vgg_crop=32, dists_weight=1.0), networks, judge)
    x = trainer.photos.crops(3, 64, torch.Generator().manual_seed(1))
    first, second = (x + 0.05 * normal(*x.shape, seed=seed) for seed in (2, 3))
    corner = torch.tensor([7, 20])
    _, both, dists = stage.structure(first, second, x, corner)
    part = (slice(None), slice(None), slice(7, 39), slice(20, 52))
    expected = torch.zeros(3)
    for sample in (first, second):
        expected += networks["alex"](sample, x) / 4 + networks["vgg"](sample[part], x[part]) / 4
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-6)
    expected = (judge(first[part], x[part]) + judge(second[part], x[part])) / 2
    torch.testing.assert_close(dists, expected, rtol=1e-4, atol=1e-6)
    draws = [stage.draw(2, 4, torch.Generator().manual_seed(seed), torch.device("cpu")) for seed in range(50)]
    for values, highest in (([d.shift for d in draws], 15), ([d.corner for d in draws], 49 - 32)):
        found = torch.stack(values)
        assert int(found.min()) <= 2
        assert highest - 2 <= int(found.max()) <= highest
    seen: list[torch.Tensor] = []

    def spy(*images: torch.Tensor) -> StructureTerms:
        seen.extend(images[:3])
        return StructureTerms(*(torch.zeros(len(images[0]), requires_grad=True),) * 3)

    draw = stage.draw(3, 4, torch.Generator().manual_seed(3), torch.device("cpu"))._replace(zeros=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.structure, "forward", spy)
        stage(x, draw)
    top, left = draw.shift.tolist()
    assert torch.equal(seen[2], x[..., top : top + 49, left : left + 49])
    assert seen[0].shape == seen[1].shape == seen[2].shape


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(reverse_recipe: Callable[[str], Recipe]) -> Recipe:
    """The smoke recipe without its [model.reverse], as the weights bring their own."""
    given = reverse_recipe("energy")
    return replace(given, model=replace(given.model, reverse=None), loop=replace(given.loop, lr=5e-4, batch=4))


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    run_steps: Callable[..., Any],
    stage2_run: Callable[..., Any],
    recipe: Recipe,
    feature_weights: Path,
) -> Any:
    """40 steps on the weights of stage 2."""
    out = tmp_path_factory.mktemp("stage3") / "run"
    out.mkdir()
    export = str(stage2_run("energy").out / "export")
    return run_steps(recipe, out, 40, init=export, stage=3, metrics=feature_weights)


@pytest.mark.slow
def test_held_out_loss_falls(run: Any) -> None:
    assert run.after["loss"] < 0.98 * run.before["loss"]
    assert {"psnr_180", "energy_180", "lpips_180"} <= run.after.keys()


@pytest.mark.slow
def test_the_plain_decode_stays_sane(run: Any) -> None:
    for q_index in (71, 180, 289):
        assert run.after[f"psnr_{q_index}"] > run.before[f"psnr_{q_index}"] - 0.5


@pytest.mark.slow
def test_g_a_and_entropy_model_stay(
    run: Any, stage2_run: Callable[..., Any], tiny: RatevarCodec, tmp_path: Path, photo: Image.Image
) -> None:
    """Files made before decode with the new weights, and encoding gives the same bytes as before."""
    before = join_shards(stage2_run("energy").out / "export", tmp_path / "before.safetensors")
    after = join_shards(run.out / "export", tmp_path / "after.safetensors")
    same = {group for group, value in after.hashes.items() if before.hashes[group] == value}
    assert same == {"stream", "analysis"}
    assert after.stream_id == tiny.stream_id
    assert after.training["stage"] == 3
    assert read_weights(tmp_path / "after.safetensors").weights_id == after.weights_id
    codec = RatevarCodec.from_file(tmp_path / "after.safetensors")
    photo = photo.crop((150, 100, 310, 228))
    file = tiny.encode(photo, q_index=200)
    assert codec.encode(photo, q_index=200) == file
    golden = sorted(GOLDEN.glob("tiny-*.unq"))  # made long before; every tile's checksum is that of its symbols
    assert len(golden) == 7
    for path in golden:
        assert codec.decode(path.read_bytes()).size == tiny.decode(path.read_bytes()).size

    def psnr(decoder: RatevarCodec, realism: float) -> float:
        decoded = np.asarray(decoder.decode(file, realism=realism), dtype=float)
        return float(10 * np.log10(255**2 / ((decoded - np.asarray(photo, dtype=float)) ** 2).mean()))

    assert psnr(codec, 0.0) > psnr(tiny, 0.0) - 0.5
    assert psnr(codec, 1.0) > psnr(tiny, 0.0) - 3.0


@pytest.fixture
def start(pieces: Path, feature_weights: Path) -> Callable[..., Any]:
    """A trainer of stage 3, at its first step."""

    def make(recipe: Recipe, out: Path, **options: Any) -> Any:
        given = {
            "data": pieces,
            "out": out,
            "time_budget": 10.0,
            "device": "cpu",
            "stage": 3,
            "metrics": feature_weights,
        }
        return Trainer(recipe, Run(**{**given, **options}))

    return make


@pytest.mark.slow
def test_resume(
    run: Any, start: Callable[..., Any], recipe: Recipe, stage2_run: Callable[..., Any], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(run.out, tmp_path / "run"))
    again = start(recipe, out, resume=True, init=str(tmp_path / "nowhere"))
    assert (again.schedule.steps, again.schedule.crops, again.schedule.seconds) == (40, 160, 4.0)
    assert torch.equal(parameters(again.model), parameters(run.trainer.model))
    (out / "checkpoint.ckpt").unlink()
    again = start(recipe, out, resume=True)
    assert any("going on from its export" in note for note in again.notes)
    assert (again.schedule.steps, again.schedule.seconds) == (40, 4.0)
    assert torch.allclose(parameters(again.model), parameters(run.trainer.ema.module), atol=2e-2)
    with pytest.raises(TrainingError, match=r"checkpoint\.ckpt: a checkpoint of stage 2"):
        start(recipe, stage2_run("energy").out, resume=True)


@pytest.mark.slow
def test_a_new_stage_has_a_schedule_of_its_own(
    start: Callable[..., Any], recipe: Recipe, stage2_run: Callable[..., Any], tmp_path: Path
) -> None:
    before = stage2_run("energy")
    trainer = start(recipe, tmp_path, init=str(before.out / "export"))
    assert (trainer.schedule.steps, trainer.schedule.seconds, trainer.schedule.planned) == (0, 0.0, 10.0)
    old = before.trainer.ema.module
    assert torch.allclose(parameters(trainer.model.f), parameters(old.f), atol=2e-2)
    # g_s starts blind to q, and where q = q_T it is what it was
    y, log2_q, one = normal(2, old.config.latent, 4, 4, seed=1), torch.full((2, 1, 1, 1), 3.0), torch.ones(2, 1, 1, 1)
    with torch.no_grad():
        same = trainer.model.g_s(y, log2_q, log2_q, one)
        torch.testing.assert_close(same, old.g_s(y, log2_q, log2_q, one), rtol=0, atol=5e-3)
        assert torch.equal(same, trainer.model.g_s(y, log2_q - 2, log2_q, one))
    # how f is sampled may be set anew
    given = before.trainer.model.config.reverse
    sampled = replace(recipe, model=replace(recipe.model, reverse=replace(given, steps=2)))
    assert start(sampled, tmp_path, init=str(before.out / "export")).model.config.reverse.steps == 2


@pytest.mark.slow
def test_f_has_a_learning_rate_of_its_own(
    start: Callable[..., Any], recipe: Recipe, stage2_run: Callable[..., Any], tmp_path: Path
) -> None:
    export = str(stage2_run("energy").out / "export")
    recipe = changed(recipe, Stage3Config, reverse_lr=3.0)
    trainer = start(recipe, tmp_path, init=export)
    trainer.step()
    synthesis, reverse = trainer.optimisers.adam.param_groups
    assert reverse["lr"] == pytest.approx(3 * synthesis["lr"]) != 0
    parts = [sum(p.numel() for p in group["params"]) for group in (synthesis, reverse)]
    assert parts == [sum(p.numel() for p in net.parameters()) for net in (trainer.model.g_s, trainer.model.f)]
    control = start(changed(recipe, Stage3Config, reverse=False), tmp_path, init=export)
    assert len(control.optimisers.adam.param_groups) == 1


@pytest.mark.slow
def test_the_discriminator_goes_into_checkpoints_alone(
    start: Callable[..., Any], recipe: Recipe, stage2_run: Callable[..., Any], tmp_path: Path
) -> None:
    export = str(stage2_run("energy").out / "export")
    recipe = changed(recipe, Stage3Config, adversarial_weight=10.0, discriminator_width=4, discriminator_lr=2.0)
    trainer = start(recipe, tmp_path, init=export)
    before = parameters(trainer.objective.companion).clone()
    terms = [trainer.step() for _ in range(3)]
    assert all(torch.isfinite(t[name]) for t in terms for name in ("loss", "realness", "discriminator"))
    after = parameters(trainer.objective.companion)
    assert not torch.equal(before, after)
    assert trainer.optimisers.adam.param_groups[2]["lr"] == pytest.approx(
        2 * trainer.optimisers.adam.param_groups[0]["lr"]
    )
    trainer.save()
    assert not any("companion" in name for name in read_shards(tmp_path / "export").tensors)
    again = start(recipe, tmp_path, init=export, resume=True)
    assert torch.equal(parameters(again.objective.companion), after)
    with pytest.raises(TrainingError, match="does not fit"):
        start(changed(recipe, Stage3Config, discriminator_width=8), tmp_path, init=export, resume=True)


@pytest.mark.slow
def test_weights_that_do_not_serve(
    start: Callable[..., Any],
    recipe: Recipe,
    stage2_run: Callable[..., Any],
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(TrainingError, match=r"needs samples: .* energy, or weights whose g_s ends in a redraw"):
        start(recipe, tmp_path, init=str(tiny_weights))
    with pytest.raises(TrainingError, match=r"needs samples: a reverse network of the training energy$"):
        start(recipe, tmp_path, init=str(stage2_run("mse").out / "export"))
    reverse = stage2_run("energy").trainer.model.config.reverse
    for changes in ({"width": 48}, {"noise_channels": 2}, {"side": False}):
        other = replace(recipe, model=replace(recipe.model, reverse=replace(reverse, **changes)))
        with pytest.raises(TrainingError, match=r"export: another reverse network than .*\[model\.reverse\]"):
            start(other, tmp_path, init=str(stage2_run("energy").out / "export"))


def test_a_new_network_starts_as_the_identity(
    start: Callable[..., Any], reverse_recipe: Callable[[str], Recipe], tiny_weights: Path, tmp_path: Path
) -> None:
    f = start(reverse_recipe("energy"), tmp_path, init=str(tiny_weights)).model.f
    assert not f.net.head.weight.any()
    assert f.net.stem.weight.any()


def test_without_the_features_nothing_starts(
    start: Callable[..., Any], recipe: Recipe, tiny_weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelMissing, match=r"alexnet_lpips\.safetensors") as error:
        start(recipe, tmp_path, init=str(tiny_weights), metrics=tmp_path)
    assert "[stage1]" not in str(error.value)


@pytest.mark.slow
def test_a_run_obeys(
    pieces: Path, recipe: Recipe, stage2_run: Callable[..., Any], feature_weights: Path, tmp_path: Path
) -> None:
    def order(line: str) -> None:
        if line.startswith("kind=train"):
            (tmp_path / "orders.json").write_text('{"stop": true}')

    export = str(stage2_run("energy").out / "export")
    train(recipe, Run(pieces, tmp_path, 500.0, None, export, False, feature_weights, "cpu", stage=3), order)
    assert not (tmp_path / "orders.json").exists()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (rows[0]["kind"], rows[0]["stage"], rows[0]["init"]) == ("start", 3, export)
    (trained, *_) = (row for row in rows if row["kind"] == "train")
    assert {"loss", "energy", "lpips", "distortion", "distortion_drawn", "grad", "lr"} <= trained.keys()
    assert rows[-1]["kind"] == "validation"
    assert rows[-1]["seconds"] < 500
    assert read_shards(tmp_path / "export").training["stage"] == 3
    assert list((tmp_path / "samples").glob("*.png"))
