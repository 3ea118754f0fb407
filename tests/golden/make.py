"""Make the golden files again. Run it only for a new format version or a new stream id, and say so in the change.

    python tests/golden/make.py NAME             NAME-*.unq and their part of golden.json. NAME: that of a model of the
                                                 package, such as ratevar, whose files go into the package as well
                                                 (`unquant selftest`), or one that lies here: tiny, tiny_sliced,
                                                 tiny_cdc or tiny_av1
    python tests/golden/make.py weights tiny     trains tiny.safetensors (or another) anew, in minutes, then as above

A golden file that no longer decodes to its recorded symbols means that files in users' hands are lost: the change is
wrong unless it comes with a new stream id. `weights` never gives the same bytes twice across versions of torch, which is
why tiny.safetensors lies in the repository; it is needed only where the tiny model no longer fits the networks.

Of the family av1 nothing but a checksum of the AV1 streams and the pictures that they decode to, NAME-*.png, is recorded:
what an encoder makes of a picture is its own affair. NAME-*.unq and NAME-*.avif that exist stay as they are, so run it for
new weights too, which draw other pictures; delete them first for a new stream id.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from av1_files import av1_streams, pillow_avif

import unquant
from unquant.codecs.av1 import Av1Codec
from unquant.codecs.latent import AnyLatentCodec, LatentCodec
from unquant.codecs.registry import SHIPPED_FOLDER
from unquant.coding import gaussian_tables, scale_grid
from unquant.entropy.entroformer import EntroformerConfig
from unquant.families import family_of
from unquant.networks.av1 import Av1Config
from unquant.networks.cdc import Cdc, CdcConfig
from unquant.networks.ratevar import EntropyConfig, Ratevar, RatevarConfig, RatevarOutput
from unquant.nn.compressor import CompressorConfig
from unquant.nn.denoiser import DenoiserConfig
from unquant.nn.transforms import klt_basis
from unquant.selftest import FOLDER as SHIPPED_GOLDEN
from unquant.selftest import Entry, entries, symbols_of
from unquant.train.ratevar.stage1 import Draw, Stage1Config, draw_conditions, stage1_loss
from unquant.weights_file import write_weights

FOLDER = Path(__file__).parent
PHOTO = SHIPPED_FOLDER.parent / "demo" / "coffee.png"

TWO_PASS = RatevarConfig(
    latent=16,
    analysis_width8=12,
    analysis_depth8=1,
    analysis_width16=16,
    analysis_depth16=1,
    synthesis_width16=16,
    synthesis_depth16=1,
    synthesis_width8=12,
    synthesis_depth8=1,
    cond=8,
    tile=8,
    default_realism=0.5,
    entropy=EntropyConfig(hyper=8, width=16, context=16, hidden=24, cond=8, scale_high=32.0, scales=32),
)
TINY: dict[str, RatevarConfig | CdcConfig | Av1Config] = {
    "tiny": TWO_PASS,
    "tiny_sliced": replace(TWO_PASS, entropy=replace(TWO_PASS.entropy, slices=(0.125, 0.25, 0.625))),
    # several attention windows in a tile
    "tiny_cdc": CdcConfig(
        tile=8,
        default_realism=0.5,
        train_steps=1000,
        steps=2,
        compressor=CompressorConfig(16, 4, (8, 12, 16), (1, 1, 1), (8, 12, 16), (1, 1, 1)),
        denoiser=DenoiserConfig((12, 16, 24), (1, 1, 1), (16, 16), (1, 1), 16, 2),
        entropy=EntropyConfig(
            scale_high=32.0,
            scales=32,
            entroformer=EntroformerConfig(
                hyper=8, width=16, heads=2, depth=2, mlp=2, hidden=24, top=4, window=4, cond=8
            ),
        ),
    ),
    "tiny_av1": Av1Config(width8=16, depth8=1, width16=16, depth16=1, width2=8, cond=8, default_realism=0.5),
}
FAMILY = {RatevarConfig: "ratevar", CdcConfig: "cdc", Av1Config: "av1"}
STEPS, BATCH, CROP = 2400, 8, 64


def one_pass(model: Ratevar | Cdc, x: torch.Tensor, draw: Draw) -> RatevarOutput:
    """What the loss of stage 1 sees; of `cdc` the linear decode, without the U-Net."""
    if not isinstance(model, Cdc):
        return model(x, draw.log2_q, draw.realism)
    y = model.g_a(x)
    coded = model.quantise(y, draw.log2_q, noise=True)
    y_hat = coded.v_hat * torch.exp2(draw.log2_q)
    base = model.g_s(y_hat).base
    assert base is not None
    return RatevarOutput(base, y, y_hat, coded.bits_y, coded.bits_z)


def draw_av1(config: Av1Config) -> None:
    """A model of random weights: what it draws has nothing to do with the picture, and differs with all that it is told."""
    torch.manual_seed(0)
    model = family_of("av1").load("model")(config)
    for key, parameter in model.named_parameters():
        if key.endswith("film.proj.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    # as networks start, noise is not heard
    model.f.stem.reset_parameters()
    model.f.inject.reset_parameters()
    torch.nn.init.normal_(model.f.head.weight, std=0.2)
    tensors = {key: tensor.detach().half() for key, tensor in model.state_dict().items()}
    write_weights(FOLDER / "tiny_av1.safetensors", "av1", config.to_dict(), tensors, {"purpose": "tests only"})


def train(name: str) -> None:
    """A model of some 100 000 parameters, trained on the demo's photograph, so that its μ and σ mean something."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    photo = torch.from_numpy(np.array(Image.open(PHOTO).convert("RGB"))).permute(2, 0, 1).float() / 255
    config = TINY[name]
    assert not isinstance(config, Av1Config)
    family = FAMILY[type(config)]

    def crops(count: int) -> torch.Tensor:
        tops = torch.randint(photo.shape[1] - CROP, (count,), generator=generator).tolist()
        lefts = torch.randint(photo.shape[2] - CROP, (count,), generator=generator).tolist()
        batch = torch.stack([photo[:, a : a + CROP, b : b + CROP] for a, b in zip(tops, lefts, strict=True)])
        return batch.rot90(int(torch.randint(4, (), generator=generator)), (2, 3))

    model = family_of(family).load("model")(config)
    model.start_from(
        *klt_basis(torch.nn.functional.pixel_unshuffle(crops(512), 16).movedim(1, -1).reshape(-1, 768), 16)
    )
    stage = Stage1Config(lpips_weight=0.0, q_map=0.25)
    optimiser = torch.optim.Adam(model.parameters())
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * 0.5 * (1 + np.cos(np.pi * step / STEPS)) + 1e-5
        x = crops(BATCH)
        draw = draw_conditions(BATCH, CROP // 16, config, stage, generator, torch.device("cpu"))
        terms = stage1_loss(x, one_pass(model, x, draw), draw, stage, None)
        optimiser.zero_grad()
        terms.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 200 == 0 or step == STEPS - 1:
            print(
                f"step {step}: loss {terms.loss.item():.3f}, {terms.bpp.item():.3f} bpp, d {terms.distortion.item():.1f}"
            )
    if isinstance(model, Cdc):
        # trained for so short it would learn to leave the noise alone: it draws at random, a few levels of 255
        torch.nn.init.normal_(model.f.head.weight, std=0.006)
    entropy = config.entropy
    tables = gaussian_tables(scale_grid(entropy.scale_low, entropy.scale_high, entropy.scales)).to_arrays()
    tensors = {name: tensor.detach().half() for name, tensor in model.state_dict().items()}
    tensors |= {f"tables.{name}": torch.from_numpy(array.copy()) for name, array in tables.items()}
    write_weights(FOLDER / f"{name}.safetensors", family, config.to_dict(), tensors, {"purpose": "tests only"})


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + b" a golden packet" * 20 + b"</x:xmpmeta>"
"""Long enough to be deflated in a file."""


def exif() -> bytes:
    """Of few bytes, which deflated would be no fewer."""
    tags = Image.Exif()
    tags[0x0112] = 1
    tags[0x8298] = "(c)"
    return tags.tobytes()


def pictures(codec: AnyLatentCodec) -> dict[str, tuple[Image.Image, dict[str, object]]]:
    """The golden pictures of one model by name, each with the options of its encode."""
    photo = Image.open(PHOTO).convert("RGB")
    low, high = codec.q_index_range
    step_map = np.full((8, 10), high - 20)
    step_map[2:6, 3:7] = low + 80
    translucent = photo.crop((200, 100, 233, 170))
    translucent.putalpha(Image.linear_gradient("L").resize(translucent.size))
    colours = np.random.Generator(np.random.Philox(7)).integers(0, 2, (9, 12, 3), dtype=np.uint8) * 255
    blocks = Image.fromarray(colours).resize((192, 144), Image.Resampling.NEAREST)
    described = photo.crop((120, 90, 184, 138))
    described.info |= {"exif": exif(), "xmp": XMP}
    metadata = {"metadata": (described, {"quality": 50})} if codec.name == "tiny" else {}
    return metadata | {
        "point": (photo.crop((300, 200, 301, 201)), {"q_index": 200}),
        "fine": (photo.crop((100, 80, 196, 160)), {"q_index": low}),
        "coarse": (photo.crop((100, 80, 400, 280)), {"q_index": high}),
        "map": (photo.crop((240, 120, 400, 240)), {"q_index": step_map}),
        "alpha": (translucent, {"quality": 40, "realism": 0.25}),
        "blocks": (blocks, {"quality": 90}),
    }


def av1_files(codec: Av1Codec) -> dict[str, bytes]:
    """The golden files of a model of the family av1 by name, as today's encoder makes them."""
    photo = Image.open(PHOTO).convert("RGB")
    translucent = photo.crop((200, 100, 233, 145))
    translucent.putalpha(Image.linear_gradient("L").resize(translucent.size))
    odd = photo.crop((240, 60, 311, 113))
    turned = Image.Exif()
    turned[0x0112] = 6
    chroma = {"quality": 50, "subsampling": "4:2:0", "exif": turned}
    return {
        "plain.unq": codec.encode(photo.crop((240, 120, 301, 167)), quality=60, realism=1.0),
        "half.unq": codec.encode(odd, target_bytes=len(codec.encode(odd, quality=0)) - 1),
        "alpha.unq": codec.encode(translucent, quality=40, realism=0.25, seed=7),
        "grey.avif": pillow_avif(photo.crop((280, 180, 320, 229)).convert("L"), quality=60),
        "chroma.avif": pillow_avif(translucent, **chroma),
    }


def av1_entries(codec: Av1Codec, folder: Path) -> list[Entry]:
    """Makes the files of one model that are missing, and the pictures of all of them; returns their entries."""
    codec.precision = torch.float32
    entries: list[Entry] = []
    for name, data in av1_files(codec).items():
        path = folder / f"{codec.name}-{name}"
        if not path.is_file():
            path.write_bytes(data)
        picture = path.with_suffix(".png")
        codec.decode(path.read_bytes()).save(picture, pnginfo=None, exif=b"", optimize=True)
        entries.append(
            {
                "file": path.name,
                "weights": codec.name,
                "stream_id": codec.stream_id.hex(),
                "streams": [hashlib.sha256(stream).hexdigest() for stream in av1_streams(path.read_bytes())],
                "picture": picture.name,
            }
        )
    return entries


def make_files(weights: Path, folder: Path) -> None:
    """The golden files of one weights file and their entries in golden.json; those of other weights stay."""
    record = [entry for entry in entries(folder) if entry["weights"] != weights.stem]
    codec = unquant.load(str(weights))
    if isinstance(codec, Av1Codec):
        record += av1_entries(codec, folder)
    else:
        assert isinstance(codec, LatentCodec)
        record += latent_entries(codec, folder)
    (folder / "golden.json").write_text(json.dumps(record, indent=1) + "\n")


def latent_entries(codec: AnyLatentCodec, folder: Path) -> list[Entry]:
    """Makes the files of one model anew; returns their entries."""
    for path in folder.glob(f"{codec.name}-*.unq"):
        path.unlink()
    made: list[Entry] = []
    for name, (picture, options) in pictures(codec).items():
        path = folder / f"{codec.name}-{name}.unq"
        path.write_bytes(codec.encode(picture, **options))
        symbols = symbols_of(codec, path.read_bytes())
        made.append(
            {
                "file": path.name,
                "weights": codec.name,
                "stream_id": codec.stream_id.hex(),
                "symbols": len(symbols) // 4,
                "sha256": hashlib.sha256(symbols).hexdigest(),
            }
        )
    return made


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["weights", "tiny_av1" as name]:
            draw_av1(TINY[name])
        case ["weights", name] if name in TINY:
            train(name)
        case [name] if name != "weights":
            pass
        case _:
            raise SystemExit(__doc__)
    if name in TINY:
        make_files(FOLDER / f"{name}.safetensors", FOLDER)
    else:
        make_files(SHIPPED_FOLDER / f"{name}.safetensors", SHIPPED_GOLDEN)
