"""The family `av1` drawn by ONNX Runtime on the CPU, in float32: a process that decodes so never loads torch.

weights file ──►┤onnx_file├──► graph ──►┤ONNX Runtime├──► x̂_0, x̂_1 of windows
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final, Unpack

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from unquant.codecs.av1_decode import Av1Decoder
from unquant.codecs.decoder import Drawing
from unquant.codecs.onnx_file import OnnxNetwork, onnx_network
from unquant.codecs.options import DecodeKeywords, DecodeOptions, Source
from unquant.codecs.parts import padded_part
from unquant.codecs.places import Window, spans
from unquant.codecs.progress import counted
from unquant.codecs.sources import file_bytes
from unquant.container import decode_limit, limits_within, pixel_limit
from unquant.errors import CodecMissing, ImageTooLarge, UnquantError, WeightsError
from unquant.networks.coding import STRIDE, Coding
from unquant.philox import uniform_row

__all__ = ["OnnxDecoder", "onnx_decoder"]

_NOISE: Final = {"coarse_noise": (0, 4, 2), "fine_noise": (1, 1, 8)}
"""Stream, channels, and values a side of a position of 16 pixels."""


class OnnxDecoder(Av1Decoder):
    """Decodes like `Av1Codec` on the CPU. Safe to share between threads.

    threads: that it computes in, None for one a core. Raises CodecMissing without ONNX Runtime, WeightsError where that
    refuses the network.
    """

    def __init__(self, network: OnnxNetwork, name: str, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise CodecMissing("--engine onnx needs ONNX Runtime: pip install 'unquant[onnx]'") from None
        self.name, self.stream_id = name, bytes.fromhex(network.stream_id)
        self._halo, self._realism = network.halo, network.default_realism
        options = onnxruntime.SessionOptions()
        # a number that is given leaves the threads free to run on any core
        options.intra_op_num_threads = threads or _cores()
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(network.data, options, ["CPUExecutionProvider"])
        except Exception as e:  # it has errors of its own for every cause
            raise WeightsError(f"{name}: ONNX Runtime refuses the network: {e!s:.200}") from None

    @property
    def _default_realism(self) -> float:
        return self._realism

    def decode(self, data: Source, **options: Unpack[DecodeKeywords]) -> PILImage.Image:
        """The picture of a file, as of `Codec.decode`, which says what is taken and raised."""
        asked = DecodeOptions(**options)
        if asked.steps is not None:
            self._check_steps(asked.steps)
        with limits_within(asked.limits), pixel_limit(asked.max_pixels), decode_limit():
            return self._decode(file_bytes(data), asked)

    @contextmanager
    def _guarded(self) -> Generator[None]:
        try:
            yield
        except MemoryError as e:
            raise ImageTooLarge("not enough memory for this image") from e
        except UnquantError:
            raise
        except Exception as e:
            # the runtime's are of many types, and name the allocator
            if "lloc" not in str(e):
                raise
            raise ImageTooLarge("not enough memory for this image") from e

    def _draw(self, rgb: npt.NDArray[np.uint8], coding: Coding, drawing: Drawing) -> npt.NDArray[np.uint8]:
        part = drawing.window.covering(STRIDE)
        plane = Window(0, rgb.shape[0], 0, rgb.shape[1]).covering(STRIDE)
        out = np.empty((*part.times(STRIDE).size, 3), np.uint8)
        rows = spans(plane.bottom, self.window, self._halo, part.top, part.bottom)
        columns = spans(plane.right, self.window, self._halo, part.left, part.right)
        places = list(product(rows, columns))
        for (top, bottom, *read_rows), (left, right, *read_columns) in counted(places, "windows", len(places)):
            read, place = Window(*read_rows, *read_columns), Window(top, bottom, left, right)
            found = self._drawn(padded_part(rgb, read, STRIDE), coding, drawing, read)
            _cut(out, place.seen_from(part).times(STRIDE))[:] = _cut(found, place.seen_from(read).times(STRIDE))
        return np.ascontiguousarray(_cut(out, drawing.window.seen_from(part.times(STRIDE))))

    def _drawn(
        self, rgb: npt.NDArray[np.uint8], coding: Coding, drawing: Drawing, place: Window
    ) -> npt.NDArray[np.uint8]:
        """What is drawn of a window (h, w, 3) at a place, in positions."""
        given = {
            "x_q": np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32) / np.float32(255),
            "coding": np.array([coding.numbers], np.float32),
        }
        for name, (stream, channels, scale) in _NOISE.items():
            given[name] = _noise(drawing.seed if drawing.realism > 0 else None, stream, channels, place.times(scale))
        ends = [end for end, counts in ((0, drawing.realism < 1), (1, drawing.realism > 0)) if counts]
        pictures = [
            self._session.run(["x"], {**given, "realism": np.full((1, 1, 1, 1), end, np.float32)})[0][0] for end in ends
        ]
        x = pictures[0]
        if len(pictures) == 2:
            x = x + np.float32(drawing.realism) * (pictures[1] - x)
        return np.rint(x * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)


def _cut(plane: npt.NDArray[np.uint8], window: Window) -> npt.NDArray[np.uint8]:
    """That part of (h, w, 3)."""
    return plane[window.top : window.bottom, window.left : window.right]


def _noise(seed: int | None, stream: int, channels: int, place: Window) -> npt.NDArray[np.float32]:
    """As `diffusion.seeded_noise`, (1, c, h, w), within rounding; without a seed 0."""
    height, width = place.size
    out = np.zeros((1, channels, height, width), np.float32)
    normal = NormalDist().inv_cdf
    for row in range(height if seed is not None else 0):
        assert seed is not None
        uniform = uniform_row(seed, stream, 0, place.top + row, place.left * channels, width * channels)
        out[0, :, row] = np.array([normal(u) for u in uniform.tolist()]).reshape(width, channels).T
    return out


@cache
def onnx_decoder(path: Path, threads: int | None = None) -> OnnxDecoder:
    """The decoder of a weights file, made once in a process. Raises what `onnx_network` and `OnnxDecoder` do."""
    return OnnxDecoder(onnx_network(path), path.stem, threads)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
