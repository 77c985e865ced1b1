"""GPT-2 in TensorFlow, from the tensors of a checkpoint of openai/gpt-2.

The equations are those of Radford et al. 2019, with the normalisations before the layers. Whatever
a layer gives is kept under the name that transformers has for that module.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_bert
from tf_bert import Weights

EPSILON = 1e-5
_MASKED = -1e10


def run(weights: Weights, ids: np.ndarray, layers: int, heads: int) -> dict[str, np.ndarray]:
    """What every layer gives; the last is `ln_f`."""
    seen: dict[str, Any] = {}
    x = tf.gather(weights("model/wte"), ids) + weights("model/wpe")[: ids.shape[1]]
    for number in range(layers):
        scope, module = f"model/h{number}", f"h.{number}"
        seen[f"{module}.ln_1"] = _norm(weights, x, f"{scope}/ln_1")
        seen[f"{module}.attn"] = _attention(weights, seen, heads, scope, module)
        x = x + seen[f"{module}.attn"]
        seen[f"{module}.ln_2"] = _norm(weights, x, f"{scope}/ln_2")
        seen[f"{module}.mlp"] = _mlp(weights, seen, scope, module)
        x = seen[module] = x + seen[f"{module}.mlp"]
    seen["ln_f"] = _norm(weights, x, "model/ln_f")
    return {name: tensor.numpy() for name, tensor in seen.items()}


def _attention(weights: Weights, seen: dict[str, Any], heads: int, scope: str, module: str) -> Any:
    joined = _dense(weights, seen[f"{module}.ln_1"], f"{scope}/attn/c_attn")
    seen[f"{module}.attn.c_attn"] = joined
    length = joined.shape[1]
    later = np.triu(np.ones((length, length)), 1) * _MASKED
    mixed = tf_bert.attend(*tf.split(joined, 3, -1), heads, tf.cast(later, joined.dtype))
    return _dense(weights, mixed, f"{scope}/attn/c_proj")


def _mlp(weights: Weights, seen: dict[str, Any], scope: str, module: str) -> Any:
    inner = _dense(weights, seen[f"{module}.ln_2"], f"{scope}/mlp/c_fc")
    seen[f"{module}.mlp.c_fc"] = inner
    return _dense(weights, tf_bert.gelu(inner, tanh=True), f"{scope}/mlp/c_proj")


def _dense(weights: Weights, x: Any, scope: str) -> Any:
    """A convolution of width 1: its kernel is [1, in, out]."""
    return tf.nn.conv1d(x, weights(f"{scope}/w"), 1, "VALID") + weights(f"{scope}/b")


def _norm(weights: Weights, x: Any, scope: str) -> Any:
    return tf_bert.layer_norm(weights, x, scope, EPSILON, names=("g", "b"))
