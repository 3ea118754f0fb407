"""The network of the family `av1` as an ONNX graph, made from a weights file's own arrays; no torch.

Numbers stay as the file stores them, int8 with a scale per output channel or fp16, and become float32 within the graph, which
a runtime does once, when it loads: the products are those of `weights_file`. The graph computes what `nn.redraw` and
`networks.av1` say, in float32. Its names and shapes:

    x_q (b, 3, h, w)            AV1's picture in [0, 1], sides multiples of 16
    coding (b, 8)               `Coding.numbers`
    realism (b, 1, 1, 1)        0 or 1
    coarse_noise (b, 4, h/8, w/8), fine_noise (b, 1, h/2, w/2)      standard normal; counts at realism 1 alone
    ──► x (b, 3, h, w)          in [0, 1]

Opset 17, IR version 8: SpaceToDepth has another order of channels than torch's pixel_unshuffle, so that the weights behind it
are turned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from unquant.container.obu import ac_q
from unquant.errors import CodecMissing, WeightsError
from unquant.networks.coding import HALF_STRENGTH, SCALARS
from unquant.weights_header import INT8_SCALE

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

__all__ = ["av1_graph", "halo_of"]

_OPSET: Final = 17
_IR_VERSION: Final = 8
_EPSILON: Final = 1e-5
"""Of layer norms, torch's default."""

Array = npt.NDArray[Any]


def halo_of(arrays: Mapping[str, Array]) -> int:
    """Receptive field beyond a position of 16 pixels, in such positions; as `Redraw.halo`."""
    return 2 * _depth(arrays, "coarse") + 2 * _depth(arrays, "before") + 1


def _depth(arrays: Mapping[str, Array], part: str) -> int:
    return len({name.split(".")[2] for name in arrays if name.startswith(f"f.{part}.")})


def av1_graph(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The graph as the bytes of an ONNX file.

    arrays: tensors of a weights file as they are stored, by name. metadata: goes into the file. Raises WeightsError where
    they are not the network's, CodecMissing without the package onnx.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError:
        raise CodecMissing("ONNX needs the package onnx: pip install 'unquant[onnx]'") from None
    graph = _Graph(arrays)
    output = _network(graph)
    if left := arrays.keys() - graph.taken:
        raise WeightsError(f"weights that are not the network's: {', '.join(sorted(left)[:3])}")
    float32, b = onnx.TensorProto.FLOAT, "b"
    shapes: dict[str, list[str | int]] = {
        "x_q": [b, 3, "h", "w"],
        "coding": [b, SCALARS],
        "realism": [b, 1, 1, 1],
        "coarse_noise": [b, 4, "h8", "w8"],
        "fine_noise": [b, 1, "h2", "w2"],
    }
    inputs = [helper.make_tensor_value_info(name, float32, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info(output, float32, [b, 3, "h", "w"])]
    made = helper.make_graph(graph.nodes, "av1", inputs, outputs, graph.tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    helper.set_model_props(model, dict(metadata))
    return model.SerializeToString()


class _Graph:
    """A graph while it is made: nodes one after another, each with one output."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        from onnx import TensorProto, helper, numpy_helper

        self._helper, self._numpy, self._float32 = helper, numpy_helper, TensorProto.FLOAT
        self.arrays = arrays
        self.taken: set[str] = set()
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._constants: dict[str, str] = {}

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Another node; returns the name of its output."""
        name = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def split(self, x: str) -> tuple[str, str]:
        """The two halves of the channels."""
        names = f"Split_{len(self.nodes)}_0", f"Split_{len(self.nodes)}_1"
        self.nodes.append(self._helper.make_node("Split", [x], list(names), axis=1))
        return names

    def outputs(self, name: str) -> int:
        """Of a convolution. Raises WeightsError where there is none."""
        weight = self.arrays.get(f"{name}.weight")
        if weight is None or not weight.ndim:
            raise WeightsError(f"{name}.weight: is missing")
        return len(weight)

    def tensor(self, name: str, values: Array) -> str:
        self.tensors.append(self._numpy.from_array(np.ascontiguousarray(values), name))
        return name

    def number(self, value: float) -> str:
        name = f"number_{value:g}"
        if name not in self._constants:
            self._constants[name] = self.tensor(name, np.array(value, dtype=np.float32))
        return name

    def weight(self, name: str, shape: tuple[int, ...], unshuffle: int = 1) -> str:
        """Numbers of the weights file, float32. unshuffle: all inputs but those of noise come from SpaceToDepth by that.

        Raises WeightsError where there are none of that shape.
        """
        stored = self.arrays.get(name)
        if stored is None or stored.shape != shape:
            raise WeightsError(f"{name}: {None if stored is None else stored.shape}, where the network has {shape}")
        self.taken.add(name)
        if unshuffle > 1:
            # torch counts (channel, place), SpaceToDepth (place, channel)
            places, (o, i, *side) = unshuffle**2, shape
            unshuffled = i // places * places
            first = stored[:, :unshuffled].reshape(o, -1, places, *side).swapaxes(1, 2).reshape(o, unshuffled, *side)
            stored = np.concatenate([first, stored[:, unshuffled:]], axis=1)
        value = self._float(name, stored)
        if stored.dtype != np.int8:
            return value
        scales = self.arrays.get(name + INT8_SCALE)
        if scales is None or scales.shape != shape[:1] or scales.dtype != np.float16:
            raise WeightsError(f"{name}: not one fp16 scale per output channel")
        self.taken.add(name + INT8_SCALE)
        column = scales.reshape(-1, *[1] * (len(shape) - 1))
        return self.op("Mul", value, self._float(name + INT8_SCALE, column))

    def _float(self, name: str, values: Array) -> str:
        return self.op("Cast", self.tensor(name, values), out=f"{name}.float32", to=self._float32)

    def conv(self, name: str, x: str, outputs: int, inputs: int, side: int = 1, unshuffle: int = 1) -> str:
        weight = self.weight(f"{name}.weight", (outputs, inputs, side, side), unshuffle)
        bias = self.weight(f"{name}.bias", (outputs,))
        return self.op("Conv", x, weight, bias, kernel_shape=[side, side], pads=[side // 2] * 4)

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def norm(self, name: str, x: str, width: int) -> str:
        """Over the channels of each position."""
        last = self.op("Transpose", x, perm=[0, 2, 3, 1])
        weight, bias = self.weight(f"{name}.weight", (width,)), self.weight(f"{name}.bias", (width,))
        done = self.op("LayerNormalization", last, weight, bias, axis=-1, epsilon=_EPSILON)
        return self.op("Transpose", done, perm=[0, 3, 1, 2])

    def block(self, name: str, x: str, width: int, condition: tuple[str, int], *, norm: bool = True) -> str:
        """`ResBlock`. condition: and its width."""
        cond, cond_width = condition
        h = self.conv(f"{name}.conv1", self.norm(f"{name}.norm", x, width) if norm else x, width, width, 3)
        scale, shift = self.split(self.conv(f"{name}.film.proj", cond, 2 * width, cond_width))
        h = self.op("Add", self.op("Mul", h, self.op("Add", scale, self.number(1))), shift)
        return self.op("Add", x, self.conv(f"{name}.conv2", self.silu(h), width, width, 3))


def _network(g: _Graph) -> str:
    """`Av1.forward`, and its picture held to [0, 1]."""
    zero, last, end, one = (g.tensor(f"at_{n}", np.array([n], dtype=np.int64)) for n in (0, SCALARS - 1, SCALARS, 1))
    planes = g.tensor("planes", np.array([2, 3], dtype=np.int64))
    known = g.op("Unsqueeze", g.op("Slice", "coding", zero, last, one), planes)
    step = g.op("Unsqueeze", g.op("Slice", "coding", last, end, one), planes)
    strength = g.op("Div", step, g.op("Add", step, g.number(HALF_STRENGTH)))
    strength = g.op("Where", g.op("Greater", step, g.number(ac_q(0))), strength, g.number(0))
    scalars = g.op("Concat", known, g.op("Sub", g.op("Mul", "realism", g.number(2)), g.number(1)), axis=1)
    width8, width16, width2, width = (
        g.outputs(name) for name in ("f.stem", "f.down", "f.smooth.conv1", "f.condition.first")
    )
    cond = g.silu(g.conv("f.condition.first", scalars, width, SCALARS)), width
    cond = g.silu(g.conv("f.condition.second", cond[0], width, width)), width

    def unshuffle(x: str, by: int) -> str:
        return g.op("SpaceToDepth", x, blocksize=by)

    def shuffle(x: str, by: int) -> str:
        return g.op("DepthToSpace", x, blocksize=by, mode="CRD")

    centred = g.op("Sub", "x_q", g.number(0.5))
    noise = g.op("Mul", "coarse_noise", "realism")
    h = g.conv("f.stem", g.op("Concat", unshuffle(centred, 8), noise, axis=1), width8, 192 + 4, unshuffle=8)
    for n in range(_depth(g.arrays, "before")):
        h = g.block(f"f.before.{n}", h, width8, cond)
    c = g.conv("f.down", unshuffle(h, 2), width16, 4 * width8, unshuffle=2)
    for n in range(_depth(g.arrays, "coarse")):
        c = g.block(f"f.coarse.{n}", c, width16, cond)
    h = g.op("Add", h, shuffle(g.conv("f.up", c, 4 * width8, width16), 2))
    for n in range(_depth(g.arrays, "after")):
        h = g.block(f"f.after.{n}", h, width8, cond)
    h = shuffle(g.conv("f.fine", g.silu(g.norm("f.norm", h, width8)), 16 * width2, width8), 4)
    noise = g.op("Mul", "fine_noise", "realism")
    inputs = g.op("Concat", unshuffle(centred, 2), noise, axis=1)
    h = g.silu(g.op("Add", h, g.conv("f.inject", inputs, width2, 12 + 1, 3, unshuffle=2)))
    h = g.block("f.smooth", h, width2, cond, norm=False)
    h = shuffle(g.conv("f.full", g.silu(h), 2 * width2, width2, 3), 2)
    mean, sample = g.split(g.conv("f.head", g.silu(h), 6, width2 // 2, 3))
    residual = g.op("Add", mean, g.op("Mul", "realism", g.op("Sub", sample, mean)))
    drawn = g.op("Add", "x_q", g.op("Mul", strength, residual))
    g.op("Clip", drawn, g.number(0), g.number(1), out="x")
    return "x"
