"""A sentence encoder of BERT's shape as one ONNX graph with 8-bit weights.

Tokens in, unit vectors out: attention, mean pooling and the normalisation are inside the graph, in
standard operators. The graph is built from the weights alone, so that no torch is needed.

Weights are int8 with one float32 scale for every output of a matrix product and for every token.
They become float32 where they are used: a runtime expands the matrices once, when it opens the
graph, and of the tokens' table, half of the file, only the rows of the phrase. Nothing is rounded
at run time, so that every runtime computes the same vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.graphs.errors import ExportError
from zsd_core.semantics import quantize_rows

__all__ = ["BertShape", "text_encoder_graph"]

OPSET, IR_VERSION = 20, 9
INPUT, OUTPUT = "tokens", "vectors"
MASKED = -1e9  # added to the attention of padding
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class BertShape:
    """Sizes of an encoder that its weights do not tell.

    Attributes:
        heads: attention heads of a layer.
        epsilon: of every layer normalisation.
        padding: token that fills a row up; it is never attended to, nor pooled.
    """

    heads: int
    epsilon: float = 1e-12
    padding: int = 0

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> BertShape:
        """Read ``config.json`` of a saved model.

        Raises:
            ExportError: the model is of another kind.
        """
        wanted = {
            "model_type": "bert",
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
        }
        for key, value in wanted.items():
            if config.get(key, value) != value:
                raise ExportError(
                    f"the text encoder's {key} is {config[key]!r}; only {value!r} can be exported."
                )
        return cls(
            heads=int(config["num_attention_heads"]),
            epsilon=float(config["layer_norm_eps"]),
            padding=int(config.get("pad_token_id", 0)),
        )


def text_encoder_graph(weights: Mapping[str, Floats], shape: BertShape) -> onnx.ModelProto:
    """Build the graph.

    Args:
        weights: of a Hugging Face ``BertModel``, by their names there.
        shape: what the weights do not tell.

    Returns:
        A model from ``tokens`` (N, T) int64, rows filled up with ``shape.padding``, to ``vectors``
        (N, E) float32 of unit length.

    Raises:
        ExportError: a weight is missing.
    """
    return _Builder(weights, shape).build()


def _integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


class _Builder:
    def __init__(self, weights: Mapping[str, Floats], shape: BertShape) -> None:
        self._weights, self._shape = weights, shape
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def build(self) -> onnx.ModelProto:
        width = self._weight("embeddings.LayerNorm.weight").size
        padding = self._constant("padding", np.int64(self._shape.padding))
        real = self._op("Not", self._op("Equal", INPUT, padding))
        mask = self._op("Cast", real, to=TensorProto.FLOAT)  # (N, T)
        hidden = self._embed()
        hidden = self._encode(hidden, self._bias(real), width)
        self._pool(hidden, mask)
        graph = helper.make_graph(
            self._nodes,
            "text_encoder",
            [helper.make_tensor_value_info(INPUT, TensorProto.INT64, ["N", "T"])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", width])],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model: onnx.ModelProto = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="contrastzsd"
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _embed(self) -> str:
        """Rows of the tokens' table plus rows of the positions' table, (N, T, E)."""
        rows, scales = quantize_rows(self._weight("embeddings.word_embeddings.weight"))
        table = self._constant("word_embeddings", rows)
        scale = self._constant("word_embeddings.scale", scales[:, None])
        words = self._op("Cast", self._op("Gather", table, INPUT), to=TensorProto.FLOAT)
        words = self._op("Mul", words, self._op("Gather", scale, INPUT))
        # Every text is one segment, so the vector of segment 0 is part of every position.
        places = (
            self._weight("embeddings.position_embeddings.weight")
            + self._weight("embeddings.token_type_embeddings.weight")[:1]
        )
        one = self._constant("one", _integers(1))
        zero = self._constant("zero", _integers(0))
        length = self._op("Shape", INPUT, start=1, end=2)
        here = self._op("Slice", self._constant("positions", places), zero, length, zero, one)
        return self._norm(self._op("Add", words, here), "embeddings.LayerNorm")

    def _bias(self, real: str) -> str:
        """Added to attention, (N, 1, 1, T): 0 for a token, ``MASKED`` for padding."""
        none = self._constant("none", np.float32(0))
        masked = self._constant("masked", np.float32(MASKED))
        axes = self._constant("axes", _integers(1, 2))
        return self._op("Unsqueeze", self._op("Where", real, none, masked), axes)

    def _encode(self, hidden: str, bias: str, width: int) -> str:
        heads = self._shape.heads
        split = self._constant("split", _integers(0, 0, heads, width // heads))
        join = self._constant("join", _integers(0, 0, width))
        scale = float(np.sqrt(heads / width))  # one over the root of a head's width
        layer = 0
        while f"encoder.layer.{layer}.attention.self.query.weight" in self._weights:
            name = f"encoder.layer.{layer}."
            own = name + "attention.self."
            query = self._heads(hidden, own + "query", split, (0, 2, 1, 3), scale)
            key = self._heads(hidden, own + "key", split, (0, 2, 3, 1))
            value = self._heads(hidden, own + "value", split, (0, 2, 1, 3))
            scores = self._op("Add", self._op("MatMul", query, key), bias)
            mixed = self._op("MatMul", self._op("Softmax", scores, axis=-1), value)
            mixed = self._op("Reshape", self._op("Transpose", mixed, perm=(0, 2, 1, 3)), join)
            mixed = self._linear(mixed, name + "attention.output.dense")
            hidden = self._norm(self._op("Add", mixed, hidden), name + "attention.output.LayerNorm")
            inner = self._op("Gelu", self._linear(hidden, name + "intermediate.dense"))
            inner = self._linear(inner, name + "output.dense")
            hidden = self._norm(self._op("Add", inner, hidden), name + "output.LayerNorm")
            layer += 1
        return hidden

    def _heads(
        self, hidden: str, name: str, split: str, perm: tuple[int, ...], scale: float = 1.0
    ) -> str:
        parts = self._op("Reshape", self._linear(hidden, name, scale), split)
        return self._op("Transpose", parts, perm=perm)

    def _pool(self, hidden: str, mask: str) -> None:
        """The mean over a text's tokens, (N, E), scaled to unit length."""
        weight = self._op("Unsqueeze", mask, self._constant("last", _integers(2)))  # (N, T, 1)
        tokens = self._constant("one", _integers(1))
        total = self._op("ReduceSum", self._op("Mul", hidden, weight), tokens, keepdims=0)
        length = self._op("ReduceL2", total, tokens, keepdims=1)
        # The number of tokens cancels out of a vector of unit length.
        self._nodes.append(helper.make_node("Div", [total, length], [OUTPUT]))

    def _linear(self, value: str, name: str, scale: float = 1.0) -> str:
        rows, scales = quantize_rows(self._weight(f"{name}.weight") * np.float32(scale))
        matrix = self._constant(f"{name}.weight", np.ascontiguousarray(rows.T))
        matrix = self._op("Cast", matrix, to=TensorProto.FLOAT)
        matrix = self._op("Mul", matrix, self._constant(f"{name}.scale", scales))
        bias = self._weight(f"{name}.bias") * np.float32(scale)
        product = self._op("MatMul", value, matrix)
        return self._op("Add", product, self._constant(f"{name}.bias", bias))

    def _norm(self, value: str, name: str) -> str:
        scale = self._constant(f"{name}.weight", self._weight(f"{name}.weight"))
        bias = self._constant(f"{name}.bias", self._weight(f"{name}.bias"))
        return self._op(
            "LayerNormalization", value, scale, bias, axis=-1, epsilon=self._shape.epsilon
        )

    def _weight(self, name: str) -> Floats:
        try:
            return np.asarray(self._weights[name], np.float32)
        except KeyError:
            raise ExportError(
                f"the text encoder has no weight {name!r}; only models of BERT's shape, such as "
                "all-MiniLM-L6-v2, can be exported."
            ) from None

    def _constant(self, name: str, value: Any) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output
