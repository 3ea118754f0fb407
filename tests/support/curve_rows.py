"""Rows of two images at two rates and three realisms, with means that can be told by eye."""

from __future__ import annotations

from unquant.bench.run.rows import Row


def row(number: int, bpp: float, rho: float | None, **more: object) -> Row:
    values: dict[str, object] = {
        "key": f"{number}-{bpp}-{rho}-{more}",
        "image": f"image{number}",
        "image_id": str(number),
        "width": 100,
        "height": 80,
        "codec": "ratevar",
        "version": "v1",
        "target_bpp": bpp,
        "realism": rho,
        "bytes": int(bpp * 1000),
        "scores": {"psnr": 30 - (rho or 0) - number, "dists": 0.2 - (rho or 0) / 10},
    }
    return Row(**(values | more))  # type: ignore[arg-type]


ROWS = [row(i, bpp, rho) for bpp in (0.1, 0.2) for rho in (1.0, 0.0, 0.5) for i in (0, 2)]
