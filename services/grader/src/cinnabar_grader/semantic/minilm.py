"""all-MiniLM-L6-v2 on onnxruntime, computing in int8.

The model file keeps its weights in int8 and turns them to float before it multiplies. Here the same weights
are put into a network of our own, which multiplies in int8: the inputs of each matrix are rounded to 8 bits
row by row, by the largest value of the row, so that a text gets the same numbers whatever it is batched with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["IDS", "LENGTHS", "OUTPUT", "is_exact", "network"]

Array = npt.NDArray[Any]

IDS: Final = "input_ids"
"""Input: (N, T) int64 word pieces, padded with anything."""
LENGTHS: Final = "lengths"
"""Input: (N,) int32 how many of each row count."""
OUTPUT: Final = "hidden"
"""Output: (N, T, WIDTH) float32; rows of padding hold nothing of use."""
WIDTH: Final = 384
POSITIONS: Final = 256
LAYERS: Final = 6
_HEADS: Final = 12
_EPSILON: Final = 1e-12
_ROOT: Final = "inner.embeddings."
_MICROSOFT: Final = "com.microsoft"
_MIDDLE: Final = 128
"""What 0 is stored as in unsigned bytes."""


@dataclass(frozen=True, slots=True)
class _Linear:
    """Weights in int8 (rows, columns), a scale per column, and the bias."""

    weights: Array
    scales: Array
    bias: Array


@dataclass(slots=True)
class _Graph:
    """A network under construction."""

    onnx: Any
    unsigned: bool
    nodes: list[Any] = field(default_factory=list[Any])
    constants: dict[str, Array] = field(default_factory=dict[str, Array])

    def constant(self, name: str, values: Array) -> str:
        """Keeps an array under a name, which is returned."""
        self.constants[name] = np.ascontiguousarray(values)
        return name

    def node(self, operator: str, inputs: list[str], output: str | list[str], **attributes: object) -> str:
        """Adds an operator; returns its (first) output."""
        outputs = output if isinstance(output, list) else [output]
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def quantized(self, values: str) -> tuple[str, str]:
        """`values` (rows, columns) as unsigned bytes around `_MIDDLE`, and the scale of each row."""
        size = self.node("Abs", [values], f"{values}.size")
        largest = self.node("ReduceMax", [size, "last_axis"], f"{values}.largest", keepdims=1)
        step = self.node("Mul", [largest, "per_step"], f"{values}.step")
        scale = self.node("Max", [step, "least_step"], f"{values}.scale")
        steps = self.node("Div", [values, scale], f"{values}.steps")
        return self.node("QuantizeLinear", [steps, "one", "middle"], f"{values}.bytes"), scale

    def multiplied(self, values: tuple[str, str], linear: _Linear, output: str) -> str:
        """The product with the weights, without the bias."""
        data, scale = values
        weights = linear.weights
        if self.unsigned:
            weights = (weights.astype(np.int16) + _MIDDLE).astype(np.uint8)
        inputs = [
            data,
            self.constant(f"{output}.weights", weights),
            "one",
            self.constant(f"{output}.scales", linear.scales.astype(np.float32)),
            "middle",
            *(["middle"] if self.unsigned else []),
        ]
        product = self.node("MatMulIntegerToFloat", inputs, f"{output}.product", domain=_MICROSOFT)
        return self.node("Mul", [product, scale], output)

    def normalized(self, terms: list[str], gain: Array, bias: Array, output: str) -> str:
        """The layer norm of a sum."""
        total = terms[0]
        for index, term in enumerate(terms[1:]):
            total = self.node("Add", [total, term], f"{output}.sum{index}")
        scale, shift = self.constant(f"{output}.gain", gain), self.constant(f"{output}.shift", bias)
        return self.node("LayerNormalization", [total, scale, shift], output, axis=-1, epsilon=_EPSILON)


def network(onnx: Any, file: Path, *, unsigned: bool) -> bytes:
    """The network, as a serialized model, of the weights in `file` (whose checksum is known).

    `unsigned` stores weights as unsigned bytes too, for processors where `is_exact` is false.
    """
    tensors, linears = _read(onnx, file)
    graph = _Graph(onnx, unsigned)
    for name, values in (
        ("last_axis", np.array([-1], np.int64)),
        ("per_step", np.array(1 / 127, np.float32)),
        ("least_step", np.array(1e-8, np.float32)),
        ("one", np.array(1, np.float32)),
        ("middle", np.array(_MIDDLE, np.uint8)),
        ("first", np.array([0], np.int64)),
        ("rest", np.array([-1], np.int64)),
        ("rows", np.array([-1, WIDTH], np.int64)),
    ):
        graph.constant(name, values)
    hidden = _embedding(graph, tensors)
    for index in range(LAYERS):
        hidden = _layer(graph, index, hidden, tensors, linears)
    graph.node("Reshape", [hidden, "shape"], OUTPUT)
    return _serialized(graph)


def _read(onnx: Any, file: Path) -> tuple[dict[str, Array], dict[str, _Linear]]:
    """All tensors of the file by name, and the linear layers by the name of their module."""
    source = onnx.load_model(str(file)).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in source.initializer}
    products: dict[str, str] = {}
    for node in source.node:
        if node.op_type == "MatMul" and f"{node.input[1]}_q" in tensors:
            products[node.output[0]] = node.input[1]
    linears: dict[str, _Linear] = {}
    for node in source.node:
        names = list(node.input)
        biases = [name for name in names if name.endswith(".bias")]
        if node.op_type == "Add" and biases and len(names) == 2:
            product = products.get(names[1 - names.index(biases[0])])
            if product is not None:
                linears[biases[0].removesuffix(".bias")] = _Linear(
                    tensors[f"{product}_q"], tensors[f"{product}_scale"].reshape(-1), tensors[biases[0]]
                )
    return tensors, linears


def _embedding(graph: _Graph, tensors: Mapping[str, Array]) -> str:
    """(N · T, WIDTH); the table of word pieces stays in int8, a row is scaled when it is looked up."""
    positions = tensors[f"{_ROOT}position_embeddings.weight_q"][:POSITIONS].astype(np.float32)
    positions = positions * tensors[f"{_ROOT}position_embeddings.weight_scale"][:POSITIONS]
    graph.constant("positions", positions + tensors[f"{_ROOT}token_type_embeddings.weight"][0])
    graph.constant("pieces", tensors[f"{_ROOT}word_embeddings.weight_q"])
    graph.constant("piece_scales", tensors[f"{_ROOT}word_embeddings.weight_scale"])
    found = graph.node("Gather", ["pieces", IDS], "found")
    steps = graph.node("Cast", [found], "found.steps", to=graph.onnx.TensorProto.FLOAT)
    scales = graph.node("Gather", ["piece_scales", IDS], "found.scales")
    words = graph.node("Mul", [steps, scales], "words")
    size = graph.node("Shape", [IDS], "size")
    graph.node("Concat", [size, "rest"], "shape", axis=0)
    length = graph.node("Shape", [IDS], "length", start=1, end=2)
    places = graph.node("Slice", ["positions", "first", length], "places")
    gain, bias = tensors[f"{_ROOT}LayerNorm.weight"], tensors[f"{_ROOT}LayerNorm.bias"]
    normal = graph.normalized([words, places], gain, bias, "embedded")
    return graph.node("Reshape", [normal, "rows"], "hidden0")


def _layer(
    graph: _Graph, index: int, hidden: str, tensors: Mapping[str, Array], linears: Mapping[str, _Linear]
) -> str:
    root, name = f"inner.encoder.layer.{index}.", f"layer{index}."
    parts = [linears[f"{root}attention.self.{part}"] for part in ("query", "key", "value")]
    together = _Linear(
        np.concatenate([part.weights for part in parts], axis=1),
        np.concatenate([part.scales for part in parts]),
        np.concatenate([part.bias for part in parts]),
    )
    mixed = graph.multiplied(graph.quantized(hidden), together, f"{name}mixed")
    shaped = graph.node("Reshape", [mixed, "shape"], f"{name}shaped")
    split = [f"{name}query", f"{name}key", f"{name}value"]
    graph.node("Split", [shaped], split, axis=-1, num_outputs=3)
    bias = graph.constant(f"{name}mixed.bias", together.bias)
    attention = graph.node(
        "MultiHeadAttention",
        [*split, bias, LENGTHS],
        f"{name}attention",
        domain=_MICROSOFT,
        num_heads=_HEADS,
    )
    flat = graph.node("Reshape", [attention, "rows"], f"{name}attention.rows")
    middle = _block(graph, f"{root}attention.output.", flat, hidden, tensors, linears, f"{name}middle")
    wide = linears[f"{root}intermediate.dense"]
    spread = graph.multiplied(graph.quantized(middle), wide, f"{name}wide")
    bias = graph.constant(f"{name}wide.bias", wide.bias)
    active = graph.node("FastGelu", [spread, bias], f"{name}active", domain=_MICROSOFT)
    return _block(graph, f"{root}output.", active, middle, tensors, linears, f"hidden{index + 1}")


def _block(
    graph: _Graph,
    root: str,
    values: str,
    beside: str,
    tensors: Mapping[str, Array],
    linears: Mapping[str, _Linear],
    output: str,
) -> str:
    """A linear layer, added to what goes past it, and normalized."""
    dense = linears[f"{root}dense"]
    product = graph.multiplied(graph.quantized(values), dense, f"{output}.dense")
    bias = graph.constant(f"{output}.bias", dense.bias)
    gain, shift = tensors[f"{root}LayerNorm.weight"], tensors[f"{root}LayerNorm.bias"]
    return graph.normalized([product, beside, bias], gain, shift, output)


def _serialized(graph: _Graph) -> bytes:
    onnx, helper = graph.onnx, graph.onnx.helper
    content = helper.make_graph(
        graph.nodes,
        "minilm",
        [
            helper.make_tensor_value_info(IDS, onnx.TensorProto.INT64, ["n", "t"]),
            helper.make_tensor_value_info(LENGTHS, onnx.TensorProto.INT32, ["n"]),
        ],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["n", "t", WIDTH])],
        [onnx.numpy_helper.from_array(values, name) for name, values in graph.constants.items()],
    )
    operators = [helper.make_opsetid("", 18), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(content, opset_imports=operators, ir_version=10).SerializeToString()


def is_exact(onnx: Any, ort: Any) -> bool:
    """Whether this processor multiplies unsigned by signed bytes without loss.

    x86 without VNNI adds pairs of products in 16 bits, which overflow silently.
    """
    helper, rows = onnx.helper, 64
    content = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "largest",
        [helper.make_tensor_value_info("left", onnx.TensorProto.UINT8, [1, rows])],
        [helper.make_tensor_value_info("product", onnx.TensorProto.INT32, [1, rows])],
        [onnx.numpy_helper.from_array(np.full((rows, rows), 127, np.int8), "right")],
    )
    model = helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    product = session.run(None, {"left": np.full((1, rows), 255, np.uint8)})[0]
    return bool((product == 255 * 127 * rows).all())
