"""Small models of public projects, ported from their checkpoints and compared with TensorFlow.

Where a project left a SavedModel or a Keras file, that very program is run. Where it left weights
only, layers of TensorFlow are filled from them by TensorFlow.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import real_models as real
import torch
from torch import nn
from torch.nn import functional as F

import torch_warmstart as tws

pytestmark = [real.needs_checkpoints, pytest.mark.tensorflow]


def named(**modules: nn.Module) -> nn.Sequential:
    """A sequence of modules with names."""
    return nn.Sequential(OrderedDict(modules))


class SamePadding(nn.Module):
    """TensorFlow's SAME: where the padding is odd, one more at the end."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.pad(images, [*self._pads(images.shape[-1]), *self._pads(images.shape[-2])])

    def _pads(self, size: int) -> tuple[int, int]:
        steps = -(-size // self.stride)
        total = max((steps - 1) * self.stride + self.kernel - size, 0)
        return total // 2, total - total // 2


# -- programs that can be run ----------------------------------------------------------------------


def mlp() -> nn.Sequential:
    sizes = (3, 128, 64, 32, 16, 3)
    layers: dict[str, nn.Module] = {}
    for at, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers[f"dense_{19 + at}"] = nn.Linear(inputs, outputs)
        layers[f"relu_{at}"] = nn.ReLU()
    layers.popitem()
    return named(**layers)


@pytest.mark.parametrize("file", ["mlp_model_3to3.keras", "mlp_model_3to3.h5", "."])
def test_an_mlp_of_keras_3_is_found_by_its_names_in_all_its_files(file: str) -> None:
    import keras
    import tensorflow as tf

    inputs = real.random_batch(7, 3)
    folder = real.FOLDER / "aerogel-keras3"
    if file == ".":
        expected = tf.saved_model.load(str(folder)).signatures["serve"](tf.constant(inputs))
        expected = expected["output_0"].numpy()
    else:
        original = keras.models.load_model(folder / file, compile=False)
        expected = original.predict(inputs, verbose=0)
    model = mlp()
    real.port(model, f"aerogel-keras3/{file}")
    real.assert_agrees(model, inputs, expected)


def test_a_convolutional_net_of_unnamed_variables() -> None:
    feeds, fetches = "Features:0", ("Relu:0", "Relu_1:0", "Relu_2:0", "Relu_3:0", "Prediction:0")
    images = real.random_batch(3, 28, 28, 1)
    *layers, expected = run_graph("mlnet-mnist-conv", feeds, fetches, images)
    model = named(
        pad_1=SamePadding(6, 1),
        conv_1=nn.Conv2d(1, 6, 6),
        relu_1=nn.ReLU(),
        pad_2=SamePadding(5, 2),
        conv_2=nn.Conv2d(6, 12, 5, stride=2),
        relu_2=nn.ReLU(),
        pad_3=SamePadding(4, 2),
        conv_3=nn.Conv2d(12, 24, 4, stride=2),
        relu_3=nn.ReLU(),
        flatten=nn.Flatten(),
        dense_4=nn.Linear(1176, 200),
        relu_4=nn.ReLU(),
        dense_5=nn.Linear(200, 10),
        softmax=nn.Softmax(-1),
    )
    variables = [n for n, _ in model.named_parameters()]  # in the order in which they were made
    real.port(
        model,
        "mlnet-mnist-conv",
        var_name_to_prev_var_name={
            name: f"Variable_{at}" if at else "Variable" for at, name in enumerate(variables)
        },
        var_name_to_layout={"dense_4.weight": "flatten_channels_last[24]"},
    )
    names = ("relu_1", "relu_2", "relu_3", "relu_4")
    real.assert_agrees(
        model,
        real.channels_first(images),
        expected,
        layers=dict(zip(names, layers, strict=True)),
    )


CIFAR_NAMES = {
    "conv.weight": "Wconv1",
    "conv.bias": "bconv1",
    "dense.weight": "W1",
    "dense.bias": "b1",
}


def cifar_net() -> nn.Sequential:
    conv = nn.Conv2d(3, 32, 7, stride=2)
    return named(conv=conv, relu=nn.ReLU(), flatten=nn.Flatten(), dense=nn.Linear(5408, 10))


def test_a_dense_layer_behind_a_flatten_takes_its_features_in_torchs_order() -> None:
    images = real.random_batch(2, 32, 32, 3)
    (expected,) = run_graph("mlnet-cifar-savedmodel", "Input:0", ("add_1:0",), images)
    model = cifar_net()
    real.port(
        model,
        "mlnet-cifar-savedmodel",
        var_name_to_prev_var_name=CIFAR_NAMES,
        var_name_to_layout={"dense.weight": "flatten_channels_last[32]"},
    )
    real.assert_agrees(model, real.channels_first(images), expected)


def test_without_that_the_dense_layer_is_the_first_to_depart() -> None:
    images = real.random_batch(2, 32, 32, 3)
    fetches = ("OutputConvRelu_1:0", "add_1:0")
    features, expected = run_graph("mlnet-cifar-savedmodel", "Input:0", fetches, images)
    model = cifar_net()
    real.port(model, "mlnet-cifar-savedmodel", var_name_to_prev_var_name=CIFAR_NAMES)
    check = tws.verify_port(
        model,
        real.channels_first(images),
        expected,
        layers={"relu": features, "dense": expected},
    )
    assert check.first_departure == "dense"


def run_graph(
    folder: str, feed: str, fetches: tuple[str, ...], images: np.ndarray
) -> list[np.ndarray]:
    """What tensors of a SavedModel's graph are, by their names in it."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(real.FOLDER / folder))
    run = loaded.prune(feed, list(fetches))
    return [tensor.numpy() for tensor in run(tf.constant(images))]


# -- weights only, for layers of Keras -------------------------------------------------------------


def test_a_net_of_two_shards_is_found_by_its_attributes() -> None:
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    original = tf_keras.Sequential(
        [
            layers.Conv2D(6, 3, activation="relu", name="conv1"),
            layers.MaxPool2D(),
            layers.Conv2D(16, 3, activation="relu", name="conv2"),
            layers.MaxPool2D(),
            layers.Flatten(),
            *(
                layers.Dense(size, activation=activation, name=name)
                for size, activation, name in (
                    (120, "relu", "fc1"),
                    (84, "relu", "fc2"),
                    (10, None, "fc3"),
                )
            ),
        ]
    )
    images = real.random_batch(3, 28, 28, 1)
    original(images)
    filled = tf.train.Checkpoint(
        **{layer.name: layer for layer in original.layers if layer.weights}
    )
    path = "mnist-cnn-2shard/model.ckpt"
    filled.read(str(real.FOLDER / path)).expect_partial().assert_existing_objects_matched()
    model = named(
        conv1=nn.Conv2d(1, 6, 3),
        relu_1=nn.ReLU(),
        pool_1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 16, 3),
        relu_2=nn.ReLU(),
        pool_2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(400, 120),
        relu_3=nn.ReLU(),
        fc2=nn.Linear(120, 84),
        relu_4=nn.ReLU(),
        fc3=nn.Linear(84, 10),
    )
    real.port(model, path, var_name_to_layout={"fc1.weight": "flatten_channels_last[16]"})
    real.assert_agrees(model, real.channels_first(images), original(images).numpy())


class Cropped(nn.Module):
    """A transposed convolution with TensorFlow's SAME: the last row and column too many go."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images)[..., :-1, :-1]


VAE_NAMES = {
    f"{part}.{at}.": f"{part}/layer_with_weights-{number}/"
    for part, places in {"encoder": (0, 2, 5), "decoder": (0, "3.conv", "5.conv", 7)}.items()
    for number, at in enumerate(places)
}


def variational_autoencoder() -> nn.ModuleDict:
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, stride=2), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(2304, 4)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(2, 1568), nn.ReLU(), nn.Unflatten(-1, (32, 7, 7))),
        *(Cropped(32, 64), nn.ReLU(), Cropped(64, 32), nn.ReLU()),
        nn.ConvTranspose2d(32, 1, 3, padding=1),
    )
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})


def keras_autoencoder() -> tuple[Any, Any]:
    import tf_keras

    layers, strided = tf_keras.layers, {"strides": 2, "activation": "relu"}
    encoder = tf_keras.Sequential(
        [
            tf_keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, **strided),
            layers.Conv2D(64, 3, **strided),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    decoder = tf_keras.Sequential(
        [
            tf_keras.Input((2,)),
            layers.Dense(1568, activation="relu"),
            layers.Reshape((7, 7, 32)),
            layers.Conv2DTranspose(64, 3, padding="same", **strided),
            layers.Conv2DTranspose(32, 3, padding="same", **strided),
            layers.Conv2DTranspose(1, 3, padding="same"),
        ]
    )
    return encoder, decoder


def test_both_halves_of_an_autoencoder() -> None:
    import tensorflow as tf

    encoder, decoder = keras_autoencoder()
    original = tf.train.Checkpoint(encoder=encoder, decoder=decoder)
    path = "vae-mnist/mnist_model"
    original.read(str(real.FOLDER / path)).expect_partial().assert_existing_objects_matched()
    model = variational_autoencoder()
    real.port(
        model,
        path,
        var_name_to_prev_var_name=VAE_NAMES,
        var_name_to_layout={
            "encoder.5.weight": "flatten_channels_last[64]",
            "decoder.0.weight": "unflatten_channels_last[32]",
            "decoder.0.bias": "unflatten_channels_last[32]",
        },
    )
    images, codes = real.random_batch(2, 28, 28, 1), real.random_batch(3, 2)
    real.assert_agrees(
        model["encoder"], real.channels_first(images), encoder.predict(images, verbose=0)
    )
    painted = np.moveaxis(decoder.predict(codes, verbose=0), -1, 1)
    real.assert_agrees(model["decoder"], codes, painted)


class LastOutput(nn.Module):
    """An LSTM and a dense layer on what it gives at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 32, batch_first=True)
        self.dense = nn.Linear(32, 1)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        return self.dense(self.lstm(steps)[0][:, -1])


def test_an_lstm_whose_keys_are_numbers() -> None:
    import tensorflow as tf
    import tf_keras

    lstm, dense = tf_keras.layers.LSTM(32, return_sequences=True), tf_keras.layers.Dense(1)
    original = tf_keras.Sequential([tf_keras.Input((9, 3)), lstm])
    dense.build((None, 32))
    weights = real.tf_weights("tfnet-lstm/variables/variables")
    lstm.set_weights([weights(f"variables/{number}").numpy() for number in range(3)])
    dense.set_weights(
        [weights(f"layer_with_weights-1/{name}").numpy() for name in ("kernel", "bias")]
    )
    steps = real.random_batch(4, 9, 3)
    states = original(tf.constant(steps))
    model = LastOutput()
    real.port(model, "tfnet-lstm")
    real.assert_agrees(model, steps, dense(states[:, -1]).numpy(), layers={"lstm": states.numpy()})


# -- weights only, for plain TensorFlow ------------------------------------------------------------


def proposal_net() -> nn.Module:
    """The first net of MTCNN (Zhang et al. 2016), with its three heads."""
    return nn.ModuleDict(
        {
            "trunk": named(
                conv1=nn.Conv2d(3, 10, 3),
                prelu1=nn.PReLU(10),
                pool1=nn.MaxPool2d(2, ceil_mode=True),
                conv2=nn.Conv2d(10, 16, 3),
                prelu2=nn.PReLU(16),
                conv3=nn.Conv2d(16, 32, 3),
                prelu3=nn.PReLU(32),
            ),
            "heads": nn.ModuleDict(
                {f"conv4_{n}": nn.Conv2d(32, s, 1) for n, s in ((1, 2), (2, 4), (3, 10))}
            ),
        }
    )


def test_prelus_and_the_heads_of_a_fully_convolutional_net() -> None:
    images = real.random_batch(2, 21, 24, 3)
    path = "mtcnn-pnet/PNet-18"
    features, heads = run_proposal_net(real.tf_weights(path), images)
    model = proposal_net()
    names = {f"trunk.conv{n}.": f"conv{n}/" for n in (1, 2, 3)}
    names |= {f"trunk.prelu{n}.weight": f"conv{n}/alphas" for n in (1, 2, 3)}
    names |= {"heads.": ""}
    real.port(model, path, var_name_to_prev_var_name=names)
    expected = np.moveaxis(features, -1, 1)
    real.assert_agrees(model["trunk"], real.channels_first(images), expected)
    for name, head in model["heads"].items():
        real.assert_agrees(head, expected, np.moveaxis(heads[name], -1, 1))


def run_proposal_net(weights: Any, images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    import tensorflow as tf

    def conv(x: Any, name: str) -> Any:
        return tf.nn.conv2d(x, weights(f"{name}/weights"), 1, "VALID") + weights(f"{name}/biases")

    x = tf.constant(images)
    for number in (1, 2, 3):
        x = conv(x, f"conv{number}")
        x = tf.nn.relu(x) - weights(f"conv{number}/alphas") * tf.nn.relu(-x)
        if number == 1:
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
    heads = {f"conv4_{number}": conv(x, f"conv4_{number}").numpy() for number in (1, 2, 3)}
    return x.numpy(), heads


def test_lenet_300_from_the_first_format_and_unnamed_variables() -> None:
    path = "lenet300-v1/model.ckpt"
    digits = real.random_batch(4, 784)
    weights = real.tf_weights(path)
    expected = run_dense(
        digits, [(weights(k), weights(b)) for k, b in zip(LENET[::2], LENET[1::2], strict=True)]
    )
    model = named(
        fc1=nn.Linear(784, 300),
        relu1=nn.ReLU(),
        fc2=nn.Linear(300, 100),
        relu2=nn.ReLU(),
        fc3=nn.Linear(100, 10),
    )
    variables = [name for name, _ in model.named_parameters()]
    names = dict(zip(variables, LENET, strict=True))
    real.port(model, path, var_name_to_prev_var_name=names)
    real.assert_agrees(model, digits, expected)


LENET = ("Variable", "Variable_3", "Variable_1", "Variable_4", "Variable_2", "Variable_5")


@pytest.mark.parametrize("path", ["tdgammon-v2/checkpoint-447880", "tdgammon-v2/checkpoint-462746"])
def test_a_kernel_that_its_own_program_called_weight_is_transposed_all_the_same(path: str) -> None:
    import tensorflow as tf

    boards = real.random_batch(5, 294)
    weights = real.tf_weights(path)
    layers = [(weights(f"{n}/weight"), weights(f"{n}/bias")) for n in ("layer1", "layer2")]
    expected = tf.sigmoid(run_dense(boards, layers, tf.sigmoid)).numpy()
    model = named(
        layer1=nn.Linear(294, 50), act1=nn.Sigmoid(), layer2=nn.Linear(50, 1), act2=nn.Sigmoid()
    )
    real.port(model, path)
    real.assert_agrees(model, boards, expected)


def test_square_kernels_of_contrib_are_transposed() -> None:
    path = "acrobot-v1/model.ckpt"
    observations = real.random_batch(5, 6)
    weights = real.tf_weights(path)
    scopes = [f"value/Stack/fully_connected_{number}" for number in (1, 2, 3)]
    layers = [(weights(f"{scope}/weights"), weights(f"{scope}/biases")) for scope in scopes]
    model = named(
        fully_connected_1=nn.Linear(6, 6),
        relu_1=nn.ReLU(),
        fully_connected_2=nn.Linear(6, 6),
        relu_2=nn.ReLU(),
        fully_connected_3=nn.Linear(6, 1),
    )
    real.port(model, path, var_name_to_prev_var_name={"": "value/Stack/"})
    real.assert_agrees(model, observations, run_dense(observations, layers))


def run_dense(x: Any, layers: list[tuple[Any, Any]], activation: Any = None) -> np.ndarray:
    """Dense layers with an activation, ReLU without one given, between them."""
    import tensorflow as tf

    activation = activation or tf.nn.relu
    for at, (kernel, bias) in enumerate(layers):
        x = tf.matmul(activation(x) if at else x, kernel) + bias
    return x.numpy()
