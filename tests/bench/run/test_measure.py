"""Runs over images: one row for all that was asked for, nothing computed twice, broken things named, others go on."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unquant.bench.run import worker
from unquant.bench.run.measure import Results, measure
from unquant.bench.run.plan import Plan, Subject, resolve
from unquant.bench.run.rows import Row, read_rows, write_rows
from unquant.bench.run.setup import Failure
from unquant.bench.run.store import Store
from unquant.errors import CorruptStream, ImageTooLarge, InputError

MODEL = Subject("ratevar", "ratevar", "stand-in", "stand-in 1", is_model=True)
JPEG = Subject("jpeg", "jpeg", "1", "jpeg 1", is_model=False)
PLAN = Plan((MODEL, JPEG), bpps=(0.8, 1.6), metrics=("psnr", "gradient"))

Calls = Counter[str]
Run = Callable[..., Results]


@pytest.fixture
def paths(tmp_path: Path, picture: Image.Image) -> list[Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).crop((0, 0, 100, 90)).save(folder / "a.png")
    picture.save(folder / "b.png")
    return sorted(folder.iterdir())


@pytest.fixture
def calls(stand_in, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """How often the model that is loaded, a stand-in, encoded and decoded; files and scores that were made of all codecs."""
    counted: Calls = Counter()

    def count(target: object, name: str, label: str) -> None:
        plain = getattr(target, name)

        def call(*args: object, **options: object) -> object:
            counted[label] += 1
            return plain(*args, **options)

        monkeypatch.setattr(target, name, call)

    count(stand_in, "encode", "encode")
    count(stand_in, "decode", "decode")
    count(Store, "put_file", "files")
    count(Store, "put_decoded", "scores")
    monkeypatch.setattr(worker, "load", lambda _: stand_in)
    return counted


@pytest.fixture
def run(paths: list[Path], tmp_path: Path, calls: Calls) -> Run:
    def measured(plan: Plan = PLAN, on: list[Path] | None = None, **options: object) -> Results:
        calls.clear()
        return measure(paths if on is None else on, plan, tmp_path / "out", **options)

    return measured


def timeless(rows: list[Row]) -> list[Row]:
    return [replace(row, encode_s=None, decode_s=None, environment="") for row in rows]


def test_one_row_per_image_codec_and_setting(run: Run, tmp_path: Path) -> None:
    found = run()
    assert len(found.rows) == found.measured == 2 * 2 * (2 + 1)
    assert read_rows(tmp_path / "out/rows.jsonl") == found.rows
    assert len({row.key for row in found.rows}) == 12
    for row in found.rows:
        assert row.width * row.height == {"a": 100 * 90, "b": 192 * 180}[row.image]
        assert row.reached
        assert row.bpp <= row.target_bpp
        assert (row.realism is None) == (row.codec == "jpeg") == (row.quality is not None)
        assert row.encode_s > 0
        assert row.decode_s > 0
        assert row.scores["psnr"] > 10
        assert found.setup.environments[row.environment]["weights"] == {"ratevar": "stand-in"}
    plain, drawn = found.rows[0], found.rows[2]
    assert (plain.image, drawn.image, plain.realism, drawn.realism) == ("a", "a", 0, 1)
    assert plain.bytes == drawn.bytes
    assert plain.scores["psnr"] > drawn.scores["psnr"]


def test_nothing_is_computed_twice(run: Run, calls: Calls) -> None:
    first = run()
    # encodes: 2 images × 2 targets, and one to warm up; decodes: 2 realisms of each, and one to warm up
    assert calls == {"encode": 4 + 1, "decode": 8 + 1, "files": 8, "scores": 12}
    again = run()
    assert again.rows == first.rows
    assert (again.measured, calls) == (0, {})


@pytest.mark.slow
def test_more_of_anything_computes_only_that(run: Run, calls: Calls, paths: list[Path]) -> None:
    run(on=paths[:1])
    two = run()
    assert (two.measured, calls) == (6, {"encode": 2 + 1, "decode": 4 + 1, "files": 4, "scores": 6})
    more = run(replace(PLAN, realisms=(0.0, 0.5, 1.0)))
    # no encode but that of the warming up; one more decode of each file
    assert (more.measured, calls) == (4, {"encode": 1, "decode": 4 + 1, "scores": 4})
    assert {row.encode_s for row in more.rows if row.realism == 0.5} <= {row.encode_s for row in two.rows}
    metric = run(replace(PLAN, metrics=("psnr", "gradient", "ssim")))
    assert (metric.measured, calls) == (12, {"encode": 1, "decode": 8 + 1, "scores": 12})
    assert timeless([replace(row, scores={}) for row in metric.rows]) == timeless(
        [replace(row, scores={}) for row in two.rows]
    )
    assert [row.decode_s for row in metric.rows] == [row.decode_s for row in two.rows]
    fewer = run(replace(PLAN, metrics=("ssim",), bpps=(1.6,)))
    assert (fewer.measured, len(fewer.rows)) == (0, 6)
    assert all(row.scores.keys() == {"ssim"} and row.scores["ssim"] > 0.1 for row in fewer.rows)


def test_another_version_of_a_metric_computes_that_metric(run: Run, calls: Calls, monkeypatch) -> None:
    from unquant.bench import metrics

    first = run()
    asked: list[tuple[str, ...]] = []

    class Newer(metrics.Meter):
        def __init__(self, names, directory=None) -> None:
            asked.append(tuple(names))
            super().__init__(names, directory)
            self.versions = {name: f"{v} new" if name == "gradient" else v for name, v in self.versions.items()}

    monkeypatch.setattr(worker, "Meter", Newer)
    worker.shared_meter.cache_clear()
    try:
        again = run()
        assert again.measured == 12
        assert calls["files"] == 0
        assert asked == [("psnr", "gradient"), ("gradient",)]
        assert timeless(again.rows) == timeless(first.rows)
        assert run().measured == 0
    finally:
        worker.shared_meter.cache_clear()


@pytest.mark.slow
def test_another_codec_or_picture_is_another_row(run: Run, paths: list[Path]) -> None:
    first = run()
    newer = run(replace(PLAN, subjects=(replace(MODEL, fingerprint="stand-in 2"), JPEG)))
    assert newer.measured == 8
    assert timeless([r for r in newer.rows if r.codec == "jpeg"]) == timeless(
        [r for r in first.rows if r.codec == "jpeg"]
    )
    Image.open(paths[0]).transpose(Image.Transpose.ROTATE_180).save(paths[0])
    assert run().measured == 6


def test_a_damaged_cache_is_made_again(run: Run, tmp_path: Path) -> None:
    first = run()
    files = sorted((tmp_path / "out/cache/files").glob("*.jpg"))
    files[0].write_bytes(files[0].read_bytes()[:-1])
    next(iter(sorted((tmp_path / "out/cache/scores").iterdir()))).write_text("{")
    again = run()
    assert 1 <= again.measured <= 2
    assert timeless(again.rows) == timeless(first.rows)


def test_rows_are_kept_as_they_are_made(run: Run, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    kept: list[int] = []

    def watch(done: int, total: int) -> None:
        assert total == 12
        kept.append(len(read_rows(tmp_path / "out/rows.jsonl")))
        if done == 5:
            raise Enough

    with pytest.raises(Enough):
        run(watch=watch)
    assert kept == [0, 1, 2, 3, 4, 5]
    assert len(read_rows(tmp_path / "out/rows.jsonl")) == 5
    assert run().measured == 7


def test_an_interruption_right_after_a_row_is_written_loses_nothing(run: Run, tmp_path: Path, monkeypatch) -> None:
    plain = Store.append

    def append(store: Store, row: Row) -> None:
        plain(store, row)
        if len(read_rows(tmp_path / "out/rows.jsonl")) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "append", append)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(read_rows(tmp_path / "out/rows.jsonl")) == 5


def test_rows_of_other_commands_are_not_in_the_results(run: Run, tmp_path: Path) -> None:
    run()
    stray = replace(run().rows[0], key="stray")
    write_rows(tmp_path / "out/rows.jsonl", [stray])
    assert stray not in run(replace(PLAN, bpps=(1.6,))).rows
    assert stray not in read_rows(tmp_path / "out/rows.jsonl")


def test_sizes_only_decode_nothing(run: Run, calls: Calls) -> None:
    found = run(replace(PLAN, metrics=(), bpps=(), q_indices=(90, 10, 40)))
    assert len(found.rows) == 6
    assert calls == {"encode": 6 + 1, "decode": 1, "files": 6}  # one to warm up
    assert all(row.realism is None and row.scores == {} and row.decode_s is None for row in found.rows)
    assert run(replace(PLAN, bpps=(), q_indices=(90, 10, 40))).measured == 12
    assert calls["encode"] == 1


def test_targets_out_of_reach_are_flagged(run: Run) -> None:
    found = run(replace(PLAN, bpps=(0.01,)))
    assert not any(row.reached for row in found.rows)
    assert all(row.bpp > 0.01 for row in found.rows)


def test_qualities_and_steps(run: Run) -> None:
    found = run(replace(PLAN, bpps=(), qualities=(30,), steps=(0, 1, 4)))
    assert [(r.setting, r.target) for r in found.rows if r.image == "a"] == [
        ("ratevar, realism 0", "quality 30"),
        ("ratevar, realism 1, 0 steps", "quality 30"),
        ("ratevar, realism 1, 1 steps", "quality 30"),
        ("ratevar, realism 1, 4 steps", "quality 30"),
        ("jpeg", "quality 30"),
    ]
    scores = [row.scores["psnr"] for row in found.rows if row.image == "a"]
    assert scores[1] < scores[2] < scores[3] == scores[0]


def test_a_broken_image_is_named_and_the_rest_measured(run: Run, paths: list[Path]) -> None:
    broken = paths[0].with_name("broken.png")
    broken.write_bytes(b"no picture")
    told: list[Failure] = []
    found = run(on=[broken, *paths], tell=told.append)
    assert len(found.rows) == 12
    assert told == found.failures
    assert (told[0].image, told[0].codec) == (str(broken), "")
    assert "broken.png: cannot be read: not an image" in str(told[0].error)
    with pytest.raises(InputError, match=r"broken\.png"):
        run(on=[broken])
    with pytest.raises(InputError, match="no images"):
        run(on=[])


def test_the_same_picture_counts_once(run: Run, paths: list[Path]) -> None:
    twin = paths[0].with_name("twin.bmp")
    Image.open(paths[0]).save(twin)
    found = run(on=[*paths, twin, paths[0]])
    assert len(found.rows) == 12
    assert [note for note in found.notes if "same picture" in note] == [
        f"{twin}: the same picture as {paths[0]}; measured once"
    ]


@pytest.mark.parametrize("error", [CorruptStream("bad tile"), MemoryError("too much")])
def test_a_codec_that_fails_on_an_image_is_left_out_there(run: Run, stand_in, monkeypatch, error: Exception) -> None:
    plain = stand_in.decode

    def failing(data: bytes, **options: object) -> Image.Image:
        image = plain(data, **options)
        if image.width == 100 and len(data) > 1500:
            raise error
        return image

    monkeypatch.setattr(stand_in, "decode", failing)
    found = run()
    (failure,) = found.failures
    assert (failure.image, failure.codec) == ("a", "ratevar")
    assert str(error) in str(failure.error)
    assert isinstance(failure.error, CorruptStream | ImageTooLarge)
    assert Counter((row.image, row.codec) for row in found.rows) == {
        ("a", "ratevar"): 2, ("a", "jpeg"): 2, ("b", "ratevar"): 4, ("b", "jpeg"): 2,
    }  # fmt: skip
    monkeypatch.setattr(stand_in, "decode", plain)
    assert run().measured == 2


def test_a_target_above_the_highest_rate_warns_nobody(run: Run, stand_in, monkeypatch) -> None:
    plain = stand_in.encode

    def warning(image: Image.Image, **options: object) -> bytes:
        if "target_bytes" in options:
            warnings.warn("the target is above the highest rate", stacklevel=1)
        return plain(image, **options)

    monkeypatch.setattr(stand_in, "encode", warning)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(replace(PLAN, bpps=(90.0,)))
    assert [str(each.message) for each in caught if "target" in str(each.message)] == []


@pytest.mark.slow
def test_what_cannot_be_measured_is_none_with_a_note(run: Run, no_metric_weights: None, tmp_path: Path) -> None:
    found = run(replace(PLAN, metrics=("psnr", "lpips_alex", "ms_ssim")), metrics_dir=tmp_path)
    assert {row.scores["lpips_alex"] for row in found.rows} == {None}
    assert {row.image for row in found.rows if row.scores["ms_ssim"] is None} == {"a"}
    assert any("LPIPS" in note for note in found.notes)
    assert any("MS-SSIM" in note for note in found.notes)


def test_pictures_for_a_report(run: Run, paths: list[Path]) -> None:
    run()
    found = run()
    jpeg = next(row for row in found.rows if row.codec == "jpeg")
    drawn = next(row for row in found.rows if row.realism == 1)
    original = found.original(jpeg.image_id)
    assert np.array_equal(original, Image.open(paths[0]))
    for row in (jpeg, drawn):
        error = np.asarray(found.picture(row), float) - np.asarray(original, float)
        assert 10 * np.log10(255**2 / np.mean(error**2)) == pytest.approx(row.scores["psnr"], abs=1e-6)


def test_distances_between_the_sets(run: Run, paths: list[Path], picture: Image.Image, monkeypatch) -> None:
    from unquant.bench.metrics.sets import patches
    from unquant.bench.run import measure as module

    class Means:
        name = "VGG16"
        dimensions = 4

        def extract(self, x):
            return x.flatten(2).std(-1).repeat(1, 2)[:, :4]

    extracted: list[int] = []
    plain = patches.patch_features

    def counting(image, extractor):
        extracted.append(1)
        return plain(image, extractor)

    monkeypatch.setattr(module, "extractor_versions", lambda directory: ({"VGG16": "v1"}, ["KID: no weights"]))
    monkeypatch.setattr(worker, "load_extractor", lambda name, directory: Means())
    monkeypatch.setattr(worker, "patch_features", counting)
    worker.shared_extractor.cache_clear()
    for number, path in enumerate(paths):
        picture.resize((300, 256 + number)).save(path)
    plan = replace(PLAN, bpps=(0.8,))
    found = run(plan, distances=True)
    assert len(extracted) == 2 + 2 * 3
    assert {(each["setting"], each["images"]) for each in found.distances["distances"]} == {
        ("ratevar, realism 0", 2), ("ratevar, realism 1", 2), ("jpeg", 2),
    }  # fmt: skip
    assert "KID: no weights" in found.notes
    assert json.loads((found.setup.out / "distances.json").read_text()) == found.distances
    assert run(plan, distances=True).measured == 0
    assert len(extracted) == 8
    assert run(plan).distances is None
    worker.shared_extractor.cache_clear()


@pytest.mark.slow
def test_processes_give_the_same_scores(paths: list[Path], tmp_path: Path, tiny_weights: Path) -> None:
    subjects, _ = resolve(["jpeg", "webp", str(tiny_weights)])
    plan = Plan(tuple(subjects), qualities=(40,), metrics=("psnr", "gradient"))
    broken = tmp_path / "images" / "0.png"
    broken.write_bytes(b"")
    told: list[Failure] = []
    found = [
        measure([broken, *paths], plan, tmp_path / str(jobs), jobs=jobs, threads=1, tell=told.append) for jobs in (1, 2)
    ]
    assert timeless(found[0].rows) == timeless(found[1].rows)
    assert len(found[0].rows) == 2 * (1 + 1 + 2)
    assert [failure.image for failure in told] == [str(broken)] * 2
    places = [run.setup.environments[run.rows[0].environment] for run in found]
    assert [(place["processes"], place["threads"]) for place in places] == [(1, 1), (2, 1)]
    assert asdict(found[0].rows[0])["image"] == "a"
