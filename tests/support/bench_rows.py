"""Rows and pictures as a benchmark would measure them: real files of three small photographs, invented perception."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unquant.bench.run.rows import Row
from unquant.bench.subjects import anchors
from unquant.bench.subjects.search import encode_to_size
from unquant.errors import InputError

COFFEE = Path(__file__).parents[2] / "src" / "unquant" / "demo" / "coffee.png"
TARGETS = (0.15, 0.3, 0.6, 1.2)
REALISMS = (0.0, 0.5, 1.0)
CORNERS = {"kodim01": (40, 30), "kodim02": (200, 90), "kodim03": (330, 180)}
SIZE = (224, 176)


@dataclass(frozen=True)
class Measured:
    """originals by image_id, pictures by Row.key."""

    rows: list[Row]
    originals: dict[str, Image.Image]
    pictures: dict[str, Image.Image]

    def original(self, image_id: str) -> Image.Image:
        if image_id not in self.originals:
            raise InputError(f"{image_id}: gone")
        return self.originals[image_id]

    def picture(self, row: Row) -> Image.Image:
        if row.key not in self.pictures:
            raise InputError(f"{row.key}: gone")
        return self.pictures[row.key]


def psnr(a: Image.Image, b: Image.Image) -> float:
    error = np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def measured() -> Measured:
    """Three images, four targets; ratevar (files of WebP, realism 0, ½, 1), AVIF and JPEG."""
    with Image.open(COFFEE) as opened:
        photo = opened.convert("RGB")
    found = Measured([], {}, {})
    for number, (name, (left, top)) in enumerate(CORNERS.items()):
        image = photo.crop((left, top, left + SIZE[0], top + SIZE[1]))
        found.originals[f"id-{name}"] = image
        for row, decoded in _rows(name, number, image):
            found.rows.append(row)
            found.pictures[row.key] = decoded
    return found


def _rows(name: str, number: int, image: Image.Image) -> Iterator[tuple[Row, Image.Image]]:
    for target in TARGETS:
        for codec, library in (("ratevar", "webp"), ("avif", "avif"), ("jpeg", "jpeg")):
            sized = encode_to_size(image, library, int(target * image.width * image.height / 8))
            decoded = anchors.decode(sized.data)
            for realism in REALISMS if codec == "ratevar" else (None,):
                distance = 0.12 / (8 * len(sized.data) / (image.width * image.height)) ** 0.5
                worse = {"ratevar": 1.0 - 0.3 * (realism or 0) + 0.2 * number, "avif": 1.1, "jpeg": 1.6}[codec]
                fidelity = psnr(image, decoded) - (realism or 0)
                row = Row(
                    key=f"{name}-{codec}-{target}-{realism}",
                    image=name,
                    image_id=f"id-{name}",
                    width=image.width,
                    height=image.height,
                    codec=codec,
                    version="8f00d1ce" if codec == "ratevar" else anchors.ANCHORS[codec].version,
                    target_bpp=target,
                    quality=None if codec == "ratevar" else sized.quality,
                    realism=realism,
                    bytes=len(sized.data),
                    reached=sized.fits,
                    encode_s={"ratevar": 0.9, "avif": 0.3, "jpeg": 0.02}[codec] * (1 + number / 10),
                    decode_s={"ratevar": 0.2, "avif": 0.01, "jpeg": 0.002}[codec],
                    environment="place",
                    scores={
                        "psnr": fidelity,
                        "ms_ssim": 1 - 10 ** (-fidelity / 20),
                        "lpips_alex": distance * worse,
                        "dists": 0.7 * distance * worse,
                        "gradient": 0.6 + 0.4 * (realism or 0),
                    },
                )
                yield row, decoded
