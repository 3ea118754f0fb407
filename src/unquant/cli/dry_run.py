"""`--dry-run`: every check that needs no pixels, and what would be written, by the headers of the inputs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unquant.cli.batch import Done, read_bytes
from unquant.cli.paths import Job
from unquant.cli.transcode import foretold
from unquant.codecs.forecast import foretell_encode

if TYPE_CHECKING:
    from unquant.codecs.options import DecodeOptions

__all__ = ["DryDecode", "DryEncode"]


@dataclass(frozen=True)
class DryEncode:
    """What would be done with each image. model: its name. options: of an encode."""

    model: str
    options: Mapping[str, Any]

    def __call__(self, job: Job) -> Done:
        from unquant.codecs.options import EncodeOptions
        from unquant.codecs.registry import find_model
        from unquant.container import DEFAULT_LIMITS
        from unquant.images import image_size

        family = find_model(self.model).family
        options = EncodeOptions(**self.options)
        source = io.BytesIO(read_bytes(None, DEFAULT_LIMITS.max_file)) if job.source is None else job.source
        width, height = image_size(source, name=job.source_name, frame=job.frame)
        most = options.target(width * height)
        foretell_encode(family, width * height, search=most is not None).check()
        return _planned(width, height, "" if most is None else f", at most {most} bytes", {"most_bytes": most})


@dataclass(frozen=True)
class DryDecode:
    """What would be done with each file. model: None for the first that fits. options: of a decode."""

    model: str | None
    options: DecodeOptions

    def __call__(self, job: Job) -> Done:
        from unquant.codecs.info import info as read_info
        from unquant.codecs.registry import find_decoder
        from unquant.container import DEFAULT_LIMITS

        data = read_bytes(job.source, DEFAULT_LIMITS.max_file)
        info = read_info(data, allow_partial=self.options.allow_partial)
        find_decoder(data, self.model)
        foretold(info, self.options).check()
        *_, width, height = self.options.part(info.width, info.height)
        width, height = (-(-side // self.options.reduction) for side in (width, height))
        turned = info.container == "avif" and (info.orientation or 1) > 4
        return _planned(*((height, width) if turned else (width, height)), "", {})


def _planned(width: int, height: int, more: str, row: dict[str, Any]) -> Done:
    line = f"would be written, {width}x{height}{more}"
    return Done(line, {"dry_run": True, "width": width, "height": height, **row})
