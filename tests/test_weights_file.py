"""Weights files: what is written is read back, damage is found, no code of a file is ever run."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unquant import weights_file
from unquant.codecs import registry
from unquant.codecs.registry import read_info
from unquant.errors import ModelMissing, WeightsError
from unquant.families import family_of
from unquant.networks.av1 import Av1, Av1Config
from unquant.networks.ratevar import EntropyConfig, Ratevar, RatevarConfig, ReverseConfig
from unquant.weights_file import (
    FORMAT,
    FORMAT_INT8,
    Weights,
    group_hashes,
    join_shards,
    quantisable,
    read_shards,
    read_weights,
    write_shards,
    write_weights,
)
from unquant.weights_header import read_header

CONFIG = RatevarConfig(
    latent=8,
    analysis_width8=8,
    analysis_depth8=1,
    analysis_width16=8,
    analysis_depth16=1,
    synthesis_width16=8,
    synthesis_depth16=1,
    synthesis_width8=8,
    synthesis_depth8=1,
    cond=4,
    entropy=EntropyConfig(hyper=4, width=8, context=8, hidden=8, cond=4, scales=16),
)

LARGE = replace(CONFIG, synthesis_width16=64, synthesis_depth16=1, synthesis_width8=32, reverse=ReverseConfig(width=48))

REVERSING = replace(CONFIG, reverse=ReverseConfig(width=8))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Ratevar(CONFIG).state_dict()


@pytest.fixture(scope="module")
def reversing_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Ratevar(REVERSING).state_dict()


def write(path: Path, state: dict[str, Tensor], config: RatevarConfig = CONFIG) -> Weights:
    return write_weights(path, "ratevar", config.to_dict(), state, {"steps": 7})


def test_what_is_written_is_read_back(tmp_path: Path, state: dict[str, Tensor]) -> None:
    written = write(tmp_path / "folder" / "w.safetensors", state)
    read = read_weights(tmp_path / "folder" / "w.safetensors")
    assert (read.family, read.training, read.hashes) == ("ratevar", {"steps": 7}, written.hashes)
    assert RatevarConfig.from_dict(read.config) == CONFIG
    assert read.tensors.keys() == state.keys()
    assert all(torch.equal(read.tensors[name], state[name]) for name in state)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "w.safetensors"]


def test_hashes_do_not_depend_on_the_order_of_tensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    first = write(tmp_path / "a.safetensors", state)
    second = write(tmp_path / "b.safetensors", dict(reversed(state.items())))
    assert first.hashes == second.hashes


def test_the_header_alone_names_the_weights(tmp_path: Path, state: dict[str, Tensor]) -> None:
    written = write(tmp_path / "w.safetensors", state)
    info = read_info(tmp_path / "w.safetensors")
    assert (info.stream_id, info.weights_id) == (written.stream_id.hex(), written.weights_id)
    assert info.parameters == sum(t.numel() for t in state.values())


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("entropy.mix.weight", "stream"),
        ("entropy.log2_std", "stream"),
        ("entropy.analysis.head.weight", "analysis"),
        ("g_a.linear", "analysis"),
        ("g_s.linear", "synthesis"),
        ("f.net.head.bias", "reverse"),
    ],
)
def test_only_what_a_decoder_needs_for_the_symbols_changes_the_stream_id(
    tmp_path: Path, reversing_state: dict[str, Tensor], name: str, changed: str
) -> None:
    state = reversing_state
    before = write(tmp_path / "a.safetensors", state).hashes
    after = write(tmp_path / "b.safetensors", {**state, name: state[name] + 1}).hashes
    assert (
        {group for group in before if before[group] != after[group]}
        == {changed}
        == {family_of("ratevar").group_of(name)}
    )


def test_a_reverse_network_leaves_the_other_groups_as_they_are(
    tmp_path: Path, state: dict[str, Tensor], reversing_state: dict[str, Tensor]
) -> None:
    without = write(tmp_path / "a.safetensors", state)
    f = {name: tensor for name, tensor in reversing_state.items() if name.startswith("f.")}
    assert {family_of("ratevar").group_of(name) for name in f} == {"reverse"}
    added = write(tmp_path / "b.safetensors", state | f, REVERSING)
    assert added.hashes.keys() - without.hashes.keys() == {"reverse"}
    assert added.hashes | without.hashes == added.hashes
    assert added.stream_id == without.stream_id
    assert added.weights_id == f"{without.weights_id}-{added.hashes['reverse'][:8]}"
    assert read_info(tmp_path / "b.safetensors").weights_id == added.weights_id
    sampled = replace(REVERSING, reverse=replace(ReverseConfig(width=8), steps=4, sampler="ancestral"))
    assert write(tmp_path / "c.safetensors", state | f, sampled).hashes == added.hashes
    read = read_weights(tmp_path / "c.safetensors")
    assert RatevarConfig.from_dict(read.config) == sampled
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in f.items())


def test_the_latent_definition_changes_the_stream_id_and_the_default_realism_does_not(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    before = write(tmp_path / "a.safetensors", state)
    tile = write(tmp_path / "b.safetensors", state, replace(CONFIG, tile=32))
    realism = write(tmp_path / "c.safetensors", state, replace(CONFIG, default_realism=0.5))
    assert tile.stream_id != before.stream_id == realism.stream_id


def test_what_a_configuration_does_not_have_is_not_part_of_the_stream_id(state: dict[str, Tensor]) -> None:
    """Weights from before there were slices or Entroformers, or from when passes were a choice, keep their stream id."""
    config = CONFIG.to_dict()
    later = ("slices", "entroformer")
    assert [config["entropy"][key] for key in later] == [None, None]
    before = {key: value for key, value in config["entropy"].items() if key not in later}
    hashes = group_hashes("ratevar", config, state)
    assert hashes == group_hashes("ratevar", config | {"entropy": before}, state)
    assert hashes == group_hashes("ratevar", config | {"entropy": before | {"passes": 2}}, state)
    for more in ({"entroformer": {}}, {"slices": [0.5, 0.5]}, {"passes": 4}):
        assert hashes["stream"] != group_hashes("ratevar", config | {"entropy": before | more}, state)["stream"]


def test_of_the_other_family_the_drawing_is_not_part_of_the_stream_id(tiny_cdc_weights: Path) -> None:
    weights = read_weights(tiny_cdc_weights)
    assert {name.split(".")[0] for name in weights.tensors} == {"g_a", "g_s", "f", "entropy", "tables"}

    def changed(config: Mapping[str, Any], tensor: str | None = None) -> set[str]:
        tensors = dict(weights.tensors)
        if tensor is not None:
            tensors[tensor] = tensors[tensor] + 1
        hashes = group_hashes("cdc", weights.config | config, tensors)
        return {group for group in hashes if hashes[group] != weights.hashes[group]}

    for config in ({"steps": 9}, {"gamma": 0.5}, {"parameterisation": "epsilon"}, {"default_realism": 0.1}):
        assert changed(config) == set()
    compressor = weights.config["compressor"]
    assert changed({"compressor": compressor | {"maps": [8, 8, 8]}}) == set()
    for config in ({"tile": 16}, {"compressor": compressor | {"latent": 17}}, {"entropy": {}}):
        assert changed(config) == {"stream"}
    for tensor, group in (
        ("g_a.linear", "analysis"),
        ("entropy.analysis.stem.weight", "analysis"),
        ("entropy.context.blocks.0.table", "stream"),
        ("entropy.params.head.bias", "stream"),
        ("g_s.linear", "synthesis"),
        ("f.head.weight", "reverse"),
    ):
        assert changed({}, tensor) == {group}


# ---- int8 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large_state() -> dict[str, Tensor]:
    """Of a model whose kernels are large enough for int8, in fp16 as an export has it."""
    torch.manual_seed(1)
    return {name: tensor.half() for name, tensor in Ratevar(LARGE).state_dict().items()}


def write_int8(path: Path, state: dict[str, Tensor], chosen: Collection[str]) -> Weights:
    return write_weights(path, "ratevar", LARGE.to_dict(), state, {}, chosen)


def test_int8_takes_large_weights_of_synthesis_and_reverse_alone(large_state: dict[str, Tensor]) -> None:
    chosen = quantisable("ratevar", large_state)
    assert {family_of("ratevar").group_of(name) for name in chosen} == {"synthesis", "reverse"}
    assert all(name.endswith(".weight") and large_state[name].numel() >= 4096 for name in chosen)
    name = "g_s.blocks16.0.conv1.weight"
    assert name in chosen
    # inputs of very different size: the step that the large ones need is coarse for the rest
    uneven = large_state[name].clone()
    uneven[:, 0] *= 30
    assert name not in quantisable("ratevar", {name: uneven})
    assert quantisable("ratevar", {name: torch.zeros(64, 64, 1, 1)}) == {name}


def test_int8_weights_come_back_to_half_a_step_and_the_rest_untouched(
    tmp_path: Path, large_state: dict[str, Tensor]
) -> None:
    chosen = quantisable("ratevar", large_state)
    path = tmp_path / "w.safetensors"
    half = write_weights(tmp_path / "half.safetensors", "ratevar", LARGE.to_dict(), large_state, {})
    written = write_int8(path, large_state, chosen)
    read = read_weights(path)
    assert read.int8 == written.int8 == chosen
    assert read.hashes == written.hashes
    assert read.tensors.keys() == large_state.keys()
    stored = load_file(path)
    with safe_open(path, framework="pt") as f:
        assert f.metadata()["format"] == FORMAT_INT8 != FORMAT
    for name, tensor in read.tensors.items():
        assert torch.equal(tensor, written.tensors[name])
        if name not in chosen:
            assert torch.equal(tensor, large_state[name])
            continue
        codes, scales = stored[name], stored[f"{name}.int8_scale"]
        assert (codes.dtype, scales.dtype, scales.shape) == (torch.int8, torch.float16, codes.shape[:1])
        step = scales.float().view(-1, 1, 1, 1)
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, codes.float() * step)
        # half a step, and what rounding the scale to fp16 costs the largest
        assert bool(((tensor - large_state[name].float()).abs() <= 0.57 * step).all())
    # the streams are the same, what draws has ids of its own
    changed = {group for group in half.hashes if half.hashes[group] != written.hashes[group]}
    assert changed == {"synthesis", "reverse"}
    assert read.stream_id == half.stream_id
    info, plain = read_info(path), read_info(tmp_path / "half.safetensors")
    assert info.weights_id == read.weights_id != plain.weights_id
    assert info.parameters == plain.parameters == sum(t.numel() for t in large_state.values())
    assert info.bytes < 0.8 * plain.bytes


def test_int8_weights_written_again_stay_the_same(tmp_path: Path, large_state: dict[str, Tensor]) -> None:
    """Another setting in a copy (`unquant train tune`) is no second rounding."""
    first = write_int8(tmp_path / "a.safetensors", large_state, quantisable("ratevar", large_state))
    again = read_weights(tmp_path / "a.safetensors")
    assert write_int8(tmp_path / "b.safetensors", again.tensors, again.int8).hashes == first.hashes


def test_channels_of_zeros_are_zeros_in_int8(tmp_path: Path) -> None:
    weight = torch.randn(64, 64, 1, 1, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    write_weights(tmp_path / "w.safetensors", "ratevar", {}, {"f.a.weight": weight}, {}, ["f.a.weight"])
    tensor = read_weights(tmp_path / "w.safetensors").tensors["f.a.weight"]
    assert torch.isfinite(tensor).all()
    assert not tensor[3].any()


@pytest.mark.parametrize("damage", ["byte", "no scale", "scale alone", "shape", "type"])
def test_damaged_int8_files_are_refused(tmp_path: Path, large_state: dict[str, Tensor], damage: str) -> None:
    path = tmp_path / "w.safetensors"
    chosen = sorted(quantisable("ratevar", large_state))
    write_int8(path, large_state, chosen)
    stored = load_file(path)
    with safe_open(path, framework="pt") as f:
        metadata = dict(f.metadata())
    scale = f"{chosen[0]}.int8_scale"
    if damage == "byte":
        stored[chosen[0]].view(-1)[5] += 1
    elif damage == "no scale":
        del stored[scale]
    elif damage == "scale alone":
        stored[chosen[0]] = stored[chosen[0]].float()
    else:
        stored[scale] = stored[scale][:-1].clone() if damage == "shape" else stored[scale].float()
    if damage != "byte":  # hashed anew: what is wrong is wrong whatever the hashes say
        metadata["hashes"] = json.dumps(group_hashes("ratevar", LARGE.to_dict(), stored))
    save_file(stored, path, metadata=metadata)
    with pytest.raises(WeightsError, match=r"w\.safetensors: damaged weights file"):
        read_weights(path)


def test_an_export_joins_to_int8(tmp_path: Path, large_state: dict[str, Tensor]) -> None:
    write_shards(tmp_path / "e", "ratevar", LARGE.to_dict(), large_state, {})
    half = join_shards(tmp_path / "e", tmp_path / "half.safetensors")
    small = join_shards(tmp_path / "e", tmp_path / "small.safetensors", int8=True)
    assert small.int8 == quantisable("ratevar", large_state)
    assert small.stream_id == half.stream_id
    assert read_weights(tmp_path / "small.safetensors").weights_id == small.weights_id != half.weights_id


# ---- av1 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("int8", [False, True])
def test_weights_without_an_entropy_model_have_no_tables_and_one_stream_id(tmp_path: Path, int8: bool) -> None:
    """What a stream of av1 says is AV1's affair: any weights draw any file."""
    ids: set[bytes] = set()
    for seed, config in ((0, Av1Config()), (1, Av1Config(width8=64, depth8=1, width16=64, depth16=1))):
        torch.manual_seed(seed)
        state = Av1(config).state_dict()
        write_shards(tmp_path / "e", "av1", config.to_dict(), state, {})
        joined = join_shards(tmp_path / "e", tmp_path / "w.safetensors", int8=int8)
        assert joined.tensors.keys() == state.keys()
        assert {family_of("ratevar").group_of(name) for name in state} == {"reverse"}
        assert read_weights(tmp_path / "w.safetensors").hashes == joined.hashes
        ids.add(joined.stream_id)
    # in files, for good
    assert ids == {bytes.fromhex("e8f09115")}


# ---- other files -----------------------------------------------------------------------------------------------------


def test_tampered_tensors_are_found(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    write(path, state)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"w\.safetensors.*do not match its hashes"):
        read_weights(path)
    read_weights(path, verify=False)


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, pickle.dumps({"g_a.linear": 1}), b"\xff" * 16])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.safetensors: damaged"):
        read_weights(path)


def test_truncated_files_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    write(path, state)
    data = path.read_bytes()
    for length in (4, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError):
            read_weights(path)


def test_safetensors_of_others_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    for metadata in (None, {"format": "pt"}, {"format": "unquant-weights/99"}):
        save_file(state, path, metadata=metadata)
        with pytest.raises(WeightsError, match="not an unquant weights file"):
            read_weights(path)
    save_file(state, path, metadata={"format": FORMAT, "config": "{", "hashes": "{}", "training": "{}"})
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="nowhere"):
        read_weights(tmp_path / "nowhere.safetensors")
    with pytest.raises(ModelMissing, match="no export here"):
        read_shards(tmp_path)


def export(folder: Path, state: dict[str, Tensor], **training: Any) -> None:
    write_shards(folder, "ratevar", CONFIG.to_dict(), state, training)


def test_shards_keep_below_their_limit_and_join(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_file, "SHARD_BYTES", 8192)
    export(tmp_path / "e", state, steps=3)
    index = json.loads((tmp_path / "e" / "ema.json").read_text())
    assert len(index["shards"]) > 2
    for name in index["shards"]:
        with safe_open(tmp_path / "e" / name, framework="pt") as f:
            keys = list(f.keys())
            assert len(keys) == 1 or sum(f.get_tensor(k).nbytes for k in keys) <= 8192
    joined = join_shards(tmp_path / "e", tmp_path / "w.safetensors")
    assert joined.training == {"steps": 3}
    assert {k for k in joined.tensors if k.startswith("tables.")} == {
        "tables.scales",
        "tables.counts",
        "tables.offsets",
    }
    for name, value in state.items():
        assert joined.tensors[name].dtype == torch.float16
        torch.testing.assert_close(joined.tensors[name].float(), value, atol=1e-3, rtol=1e-3)
    assert read_weights(tmp_path / "w.safetensors").hashes == joined.hashes
    # fewer, larger shards later: none of the old ones stays
    monkeypatch.setattr(weights_file, "SHARD_BYTES", 2**20)
    export(tmp_path / "e", state)
    assert [p.name for p in (tmp_path / "e").glob("*.safetensors")] == ["ema-01-of-01.safetensors"]


def test_tables_of_an_export_are_kept_to_the_last_digit(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """A stream id is that of every digit of the scales, in which versions of numpy differ: those that come along are kept."""
    export(tmp_path / "new", state)
    new = join_shards(tmp_path / "new", tmp_path / "new.safetensors")
    tables = {name: tensor.clone() for name, tensor in new.tensors.items() if name.startswith("tables.")}
    tables["tables.scales"][5] = torch.nextafter(tables["tables.scales"][5], torch.tensor(1e9, dtype=torch.float64))
    before = write_weights(tmp_path / "before", "ratevar", CONFIG.to_dict(), {**new.tensors, **tables}, {})
    assert before.stream_id != new.stream_id
    export(tmp_path / "on", {**state, **tables})
    on = join_shards(tmp_path / "on", tmp_path / "on.safetensors")
    assert on.stream_id == before.stream_id
    assert torch.equal(on.tensors["tables.scales"], tables["tables.scales"])
    # tables of other scales than the configuration's are not this model's
    finer = replace(CONFIG, entropy=replace(CONFIG.entropy, scales=32))
    write_shards(tmp_path / "finer", "ratevar", finer.to_dict(), {**state, **tables}, {})
    assert len(join_shards(tmp_path / "finer", tmp_path / "finer.safetensors").tensors["tables.scales"]) == 32


def test_the_limit_of_a_shard_is_15_mib() -> None:
    assert weights_file.SHARD_BYTES == 15 * 1024 * 1024


def test_values_beyond_fp16_are_not_exported(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"g_a\.linear: not finite"):
        export(tmp_path, {**state, "g_a.linear": state["g_a.linear"] + 1e6})


def test_damaged_exports_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    export(tmp_path, state)
    (shard,) = tmp_path.glob("*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match="damaged export"):
        read_shards(tmp_path)
    shard.unlink()
    with pytest.raises(WeightsError, match="damaged export"):
        read_shards(tmp_path)
    (tmp_path / "ema.json").write_text("{")
    with pytest.raises(WeightsError, match="damaged export"):
        read_shards(tmp_path)


def test_a_header_is_checked_once_until_the_file_changes(
    tmp_path: Path, tiny_weights: Path, tiny_av1_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    shutil.copy(tiny_weights, path)
    read: list[Path] = []
    monkeypatch.setattr(registry, "read_header", lambda path: read.append(path) or read_header(path))
    assert [read_info(path).family, read_info(path).family] == ["ratevar", "ratevar"]
    assert read == [path]
    shutil.copy(tiny_av1_weights, path)
    assert read_info(path).family == "av1"
    path.write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises(WeightsError):
            read_info(path)
    path.unlink()
    with pytest.raises(ModelMissing):
        read_info(path)
