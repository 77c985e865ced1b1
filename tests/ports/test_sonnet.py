"""Modules of Sonnet 2, from the checkpoints that its project keeps to stay compatible with itself.

Sonnet names every kernel `w` and every bias `b`, which nothing but a rule can tell from the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models as real
import torch
from torch import nn

import torch_warmstart as tws

pytestmark = [real.needs_checkpoints, pytest.mark.tensorflow]

RULES = Path(__file__).parent / "rules"


def checkpoint(name: str) -> str:
    return f"sonnet2/{name}/checkpoint-1"


def quiet_steps() -> np.ndarray:
    """Inputs so small that the weights, which count from 0 to 511, leave no gate saturated."""
    return real.random_batch(3, 7, 128) * np.float32(3e-4)


def port(model: nn.Module, name: str, rules: Any, **settings: Any) -> None:
    if isinstance(rules, str):
        rules = tws.load_rules(RULES / rules)
        settings = {"var_name_to_layout": rules.layouts, **settings}
    real.port(model, checkpoint(name), var_name_to_prev_var_name=rules, **settings)


def test_a_multilayer_perceptron() -> None:
    import tensorflow as tf

    read = real.tf_weights(checkpoint("mlp_3x4x5_1x3"))
    inputs = x = real.random_batch(4, 3)
    for layer in range(3):
        x = tf.nn.relu(x) if layer else x
        x = tf.matmul(x, read(f"module/_layers/{layer}/w")) + read(f"module/_layers/{layer}/b")
    linears = [nn.Linear(a, b) for a, b in ((3, 3), (3, 4), (4, 5))]
    model = nn.Sequential(*linears)
    port(model, "mlp_3x4x5_1x3", "sonnet_mlp.toml")
    with_relus = nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.ReLU(), linears[2])
    real.assert_agrees(with_relus, inputs, x.numpy())


def test_an_lstm_step_by_step() -> None:
    import tensorflow as tf

    read = real.tf_weights(checkpoint("lstm_1"))
    steps = quiet_steps()
    hidden = cell = tf.zeros((3, 1))
    outputs = []
    for step in range(steps.shape[1]):
        gates = tf.matmul(steps[:, step], read("module/_w_i")) + read("module/b")
        i, f, g, o = tf.split(gates + tf.matmul(hidden, read("module/_w_h")), 4, 1)
        cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
        hidden = tf.sigmoid(o) * tf.tanh(cell)
        outputs.append(hidden)
    model = nn.LSTM(128, 1, batch_first=True)
    port(model, "lstm_1", "sonnet_lstm.toml")
    expected = tf.stack(outputs, 1).numpy()
    last = [state.numpy()[None] for state in (hidden, cell)]
    real.assert_agrees(model, steps, [expected, last])


CONVOLUTIONS = {
    "conv1d_3x3_2x2": (nn.Conv1d(2, 3, 3, padding=1), (5, 2)),
    "conv2d_3x3_2x2": (nn.Conv2d(2, 3, 3, padding=1), (5, 6, 2)),
    "conv3d_3x3_2x2": (nn.Conv3d(2, 3, 3, padding=1), (5, 6, 4, 2)),
    "depthwise_conv2d_3x3_2x2": (nn.Conv2d(2, 2, 3, padding=1, groups=2), (5, 6, 2)),
    "conv1d_transpose_3x3_2x2": (nn.ConvTranspose1d(2, 3, 3, padding=1), (5, 2)),
    "conv2d_transpose_3x3_2x2": (nn.ConvTranspose2d(2, 3, 3, padding=1), (5, 6, 2)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution(name: str) -> None:
    model, shape = CONVOLUTIONS[name]
    images = real.random_batch(2, *shape)
    expected = convolve(name, real.tf_weights(checkpoint(name)), images)
    port(model, name, {"weight": "module/w", "bias": "module/b"})
    real.assert_agrees(model, real.channels_first(images), np.moveaxis(expected, -1, 1))


def convolve(name: str, read: Any, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    kernel, bias = read("module/w"), read("module/b")
    if name.startswith("depthwise"):
        result = tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "SAME")
    elif "transpose" in name:
        shape = (*images.shape[:-1], kernel.shape[-2])
        result = tf.nn.conv_transpose(images, kernel, shape, 1, "SAME")
    else:
        result = tf.nn.convolution(images, kernel, padding="SAME")
    return (result + bias).numpy()


def test_a_table_of_embeddings_is_found_by_its_name() -> None:
    read = real.tf_weights(checkpoint("embed_100_100"))
    ids = np.arange(100)
    model = nn.ModuleDict({"module": nn.Embedding(100, 100)})
    real.port(model, checkpoint("embed_100_100"))
    real.assert_agrees(model["module"], ids, read("module/embeddings").numpy())


def test_a_gru_that_resets_before_it_multiplies_is_refused() -> None:
    keys = ["module/_w_i", "module/_w_h", "module/b"]
    names = {name: keys for name, _ in nn.GRU(128, 1).named_parameters()}
    with pytest.raises(tws.PlanError, match="no weights make the two equal"):
        port(nn.GRU(128, 1), "gru_1", names)


def test_the_wrong_order_of_gates_departs() -> None:
    """`keras_cell` is right: with the order of TensorFlow 1's cells other numbers come out."""
    steps = quiet_steps()
    right, wrong = nn.LSTM(128, 1, batch_first=True), nn.LSTM(128, 1, batch_first=True)
    port(right, "lstm_1", "sonnet_lstm.toml")
    wrong.load_state_dict(right.state_dict())
    with torch.no_grad():
        for tensor in wrong.parameters():  # i, f, g, o as i, g, f, o
            tensor.copy_(tensor[[0, 2, 1, 3]])
        expected = right(torch.tensor(steps))[0]
    assert not tws.verify_port(wrong, steps, [expected])
