"""BERT in TensorFlow: its variables as google-research/bert names them, and what it computes.

The equations are those of Devlin et al. 2018 and Vaswani et al. 2017. What a layer gives is kept
under the name that transformers has for that module, so that a port is compared layer by layer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import: it logs a page otherwise

import tensorflow as tf

tf1 = tf.compat.v1

Weights = Callable[[str], Any]  # the tensor of a variable's name
Arrays = dict[str, np.ndarray]
EPSILON = 1e-12
# What is added to the scores of masked places: e to this power is 0 in float64 too.
_MASKED = -10_000.0


@dataclass(frozen=True)
class Sizes:
    """The numbers of a bert_config.json."""

    vocab: int = 40
    hidden: int = 32
    layers: int = 3
    heads: int = 4
    inner: int = 64
    positions: int = 16
    types: int = 2


@dataclass(frozen=True)
class Inputs:
    """A batch; the mask is 0 where there is only padding."""

    ids: np.ndarray
    types: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Record:
    """A saved BERT, and what it computed: outputs and layers by transformers' names."""

    path: str
    inputs: Inputs
    outputs: dict[str, Arrays]  # by dtype
    layers: dict[str, Arrays]  # by dtype, and there by module


def random_inputs(sizes: Sizes, random: np.random.Generator, batch: int = 3) -> Inputs:
    """Sequences of different lengths, with the second sentence somewhere in the middle."""
    length = sizes.positions - 2
    ids = random.integers(0, sizes.vocab, (batch, length))
    ends = random.integers(length // 2, length + 1, batch)
    ends[0] = length
    places = np.arange(length)
    mask = (places[None, :] < ends[:, None]).astype(np.int64)
    types = (places[None, :] >= ends[:, None] // 2).astype(np.int64)
    return Inputs(ids, types, mask)


# -- what it is made of ----------------------------------------------------------------------------


def variables(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Name and shape of every variable of a pretraining checkpoint, without the optimizer's."""
    return dict([*_embeddings(sizes), *_encoder(sizes), *_heads(sizes)])


def _embeddings(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "bert/embeddings/word_embeddings", (sizes.vocab, sizes.hidden)
    yield "bert/embeddings/token_type_embeddings", (sizes.types, sizes.hidden)
    yield "bert/embeddings/position_embeddings", (sizes.positions, sizes.hidden)
    yield from _norm("bert/embeddings/LayerNorm", sizes.hidden)


def _encoder(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    for number in range(sizes.layers):
        scope = f"bert/encoder/layer_{number}"
        for part in ("query", "key", "value"):
            yield from _dense(f"{scope}/attention/self/{part}", sizes.hidden, sizes.hidden)
        yield from _dense(f"{scope}/attention/output/dense", sizes.hidden, sizes.hidden)
        yield from _norm(f"{scope}/attention/output/LayerNorm", sizes.hidden)
        yield from _dense(f"{scope}/intermediate/dense", sizes.hidden, sizes.inner)
        yield from _dense(f"{scope}/output/dense", sizes.inner, sizes.hidden)
        yield from _norm(f"{scope}/output/LayerNorm", sizes.hidden)


def _heads(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _dense("bert/pooler/dense", sizes.hidden, sizes.hidden)
    yield from _dense("cls/predictions/transform/dense", sizes.hidden, sizes.hidden)
    yield from _norm("cls/predictions/transform/LayerNorm", sizes.hidden)
    yield "cls/predictions/output_bias", (sizes.vocab,)
    # The one kernel that is kept as [out, in], and used by matmul(..., transpose_b=True).
    yield "cls/seq_relationship/output_weights", (2, sizes.hidden)
    yield "cls/seq_relationship/output_bias", (2,)


def _dense(scope: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{scope}/kernel", (inputs, outputs)
    yield f"{scope}/bias", (outputs,)


def _norm(scope: str, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{scope}/beta", (size,)
    yield f"{scope}/gamma", (size,)


# -- what it computes ------------------------------------------------------------------------------


def encode(weights: Weights, inputs: Inputs, sizes: Sizes, *, tanh_gelu: bool) -> dict[str, Any]:
    """What every layer of the encoder and the pooler give.

    The first release of BERT has the exact GELU, by erf; its code of today the one by tanh.
    """
    seen: dict[str, Any] = {}
    x = seen["embeddings"] = _embed(weights, inputs)
    for number in range(sizes.layers):
        scope, module = f"bert/encoder/layer_{number}", f"encoder.layer.{number}"
        mixed = _attention(weights, x, inputs.mask, sizes.heads, seen, scope, module)
        x = seen[module] = _feed_forward(weights, mixed, tanh_gelu, seen, scope, module)
    seen["pooler.dense"] = dense(weights, x[:, 0], "bert/pooler/dense")
    seen["pooler"] = tf.tanh(seen["pooler.dense"])
    return seen


def predict(weights: Weights, seen: dict[str, Any], sizes: Sizes, *, tanh_gelu: bool) -> Any:
    """The masked language model's scores for every token, and the next sentence's."""
    x = dense(weights, seen[last_layer(sizes)], "cls/predictions/transform/dense")
    seen["cls.predictions.transform.dense"] = x
    x = layer_norm(weights, gelu(x, tanh_gelu), "cls/predictions/transform/LayerNorm", EPSILON)
    seen["cls.predictions.transform"] = x
    tokens = tf.matmul(x, weights("bert/embeddings/word_embeddings"), transpose_b=True)
    relation = tf.matmul(
        seen["pooler"], weights("cls/seq_relationship/output_weights"), transpose_b=True
    )
    return (
        tokens + weights("cls/predictions/output_bias"),
        relation + weights("cls/seq_relationship/output_bias"),
    )


def last_layer(sizes: Sizes) -> str:
    """The module that gives the sequence output."""
    return f"encoder.layer.{sizes.layers - 1}"


def dense(weights: Weights, x: Any, scope: str) -> Any:
    """A dense layer."""
    return tf.matmul(x, weights(f"{scope}/kernel")) + weights(f"{scope}/bias")


def layer_norm(
    weights: Weights, x: Any, scope: str, epsilon: float, names: tuple[str, str] = ("gamma", "beta")
) -> Any:
    """A layer normalisation; `names` are those of its scale and its offset."""
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    gamma, beta = (weights(f"{scope}/{name}") for name in names)
    return (x - mean) / tf.sqrt(variance + tf.constant(epsilon, x.dtype)) * gamma + beta


def gelu(x: Any, tanh: bool) -> Any:
    """x times the normal distribution's cumulative function, or the well-known approximation."""
    if tanh:
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + tf.tanh(inner))
    return 0.5 * x * (1 + tf.math.erf(x / np.sqrt(2)))


def attend(query: Any, key: Any, value: Any, heads: int, bias: Any) -> Any:
    """Scaled dot-product attention of several heads; `bias` is added to the scores."""
    query, key, value = (_split(x, heads) for x in (query, key, value))
    scale = np.sqrt(query.shape[-1])
    scores = tf.matmul(query, key, transpose_b=True) / scale + bias
    mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), value), (0, 2, 1, 3))
    return tf.reshape(mixed, (*mixed.shape[:2], -1))


def _embed(weights: Weights, inputs: Inputs) -> Any:
    words = tf.gather(weights("bert/embeddings/word_embeddings"), inputs.ids)
    types = tf.gather(weights("bert/embeddings/token_type_embeddings"), inputs.types)
    positions = weights("bert/embeddings/position_embeddings")[: inputs.ids.shape[1]]
    return layer_norm(weights, words + types + positions, "bert/embeddings/LayerNorm", EPSILON)


def _attention(
    weights: Weights,
    x: Any,
    mask: np.ndarray,
    heads: int,
    seen: dict[str, Any],
    scope: str,
    module: str,
) -> Any:
    parts = {
        f"{module}.attention.self.{part}": dense(weights, x, f"{scope}/attention/self/{part}")
        for part in ("query", "key", "value")
    }
    seen.update(parts)
    bias = tf.cast((1 - mask[:, None, None, :]) * _MASKED, x.dtype)
    mixed = seen[f"{module}.attention.self"] = attend(*parts.values(), heads, bias)
    mixed = dense(weights, mixed, f"{scope}/attention/output/dense")
    seen[f"{module}.attention.output.dense"] = mixed
    out = layer_norm(weights, x + mixed, f"{scope}/attention/output/LayerNorm", EPSILON)
    seen[f"{module}.attention.output"] = out
    return out


def _feed_forward(
    weights: Weights, x: Any, tanh_gelu: bool, seen: dict[str, Any], scope: str, module: str
) -> Any:
    inner = dense(weights, x, f"{scope}/intermediate/dense")
    seen[f"{module}.intermediate.dense"] = inner
    inner = seen[f"{module}.intermediate"] = gelu(inner, tanh_gelu)
    out = seen[f"{module}.output.dense"] = dense(weights, inner, f"{scope}/output/dense")
    return layer_norm(weights, x + out, f"{scope}/output/LayerNorm", EPSILON)


def _split(x: Any, heads: int) -> Any:
    batch, length, size = x.shape
    return tf.transpose(tf.reshape(x, (batch, length, heads, size // heads)), (0, 2, 1, 3))


# -- a small one with random weights ---------------------------------------------------------------


def save_random(folder: Path, sizes: Sizes, *, tanh_gelu: bool = True, seed: int = 5) -> Record:
    """Makes a BERT as a graph, runs it in float32 and float64, and saves it by a Saver.

    No weight is what it begins with: a zero bias or a gamma of one would hide an error.
    """
    random = np.random.default_rng(seed)
    inputs = random_inputs(sizes, random)
    with tf1.Graph().as_default(), tf1.Session() as session:
        made = _make_variables(sizes, random)
        fetches = {
            dtype: _everything(_cast(made, dtype), inputs, sizes, tanh_gelu)
            for dtype in ("float32", "float64")
        }
        session.run(tf1.global_variables_initializer())
        outputs, layers = {}, {}
        for dtype, tensors in fetches.items():
            outputs[dtype], layers[dtype] = session.run(tensors)
        saver = tf1.train.Saver(save_relative_paths=True)
        path = saver.save(session, str(folder / "bert_model.ckpt"), write_meta_graph=False)
    return Record(path, inputs, outputs, layers)


def _everything(weights: Weights, inputs: Inputs, sizes: Sizes, tanh_gelu: bool) -> Any:
    seen = encode(weights, inputs, sizes, tanh_gelu=tanh_gelu)
    tokens, relation = predict(weights, seen, sizes, tanh_gelu=tanh_gelu)
    outputs = {
        "last_hidden_state": seen[last_layer(sizes)],
        "pooler_output": seen["pooler"],
        "prediction_logits": tokens,
        "seq_relationship_logits": relation,
    }
    return outputs, seen


def _cast(made: dict[str, Any], dtype: str) -> Weights:
    return lambda name: tf.cast(made[name], dtype)


def _make_variables(sizes: Sizes, random: np.random.Generator) -> dict[str, Any]:
    made = {}
    for name, shape in variables(sizes).items():
        made[name] = _variable(name, random.normal(name.endswith("gamma"), 0.3, shape))
        for slot in ("adam_m", "adam_v"):  # BERT's own optimizer
            _variable(f"{name}/{slot}", random.uniform(0, 1, shape))
    _variable("global_step", np.array(1000), tf.int64)
    return made


def _variable(name: str, value: np.ndarray, dtype: Any = tf.float32) -> Any:
    return tf1.get_variable(name, initializer=tf.constant(value, dtype))
