"""Transformer encoders with Keras' MultiHeadAttention, and with torch's own layers for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from keras_port import assert_agrees, floats, numbers, outputs_by_layer, port, randomise
from torch import nn

import torch_warmstart as tws

pytestmark = pytest.mark.tensorflow

TOKENS, LENGTH, WIDTH, HEADS, INNER, CLASSES, BLOCKS = 30, 9, 16, 4, 24, 3, 2


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


@pytest.fixture
def sentences() -> np.ndarray:
    return np.random.default_rng(5).integers(0, TOKENS, (4, LENGTH)).astype(np.int32)


# -- pre-norm, as a functional model ---------------------------------------------------------------


def keras_prenorm(keras: Any, activation: str = "gelu") -> Any:
    layers = keras.layers
    tokens_in = layers.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(TOKENS, WIDTH, name="tokens")(tokens_in)
    for number in range(BLOCKS):
        y = layers.LayerNormalization(epsilon=1e-6, name=f"attention_norm{number}")(x)
        attend = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"attention{number}")
        x = layers.Add()([x, attend(y, y)])
        y = layers.LayerNormalization(epsilon=1e-6, name=f"mlp_norm{number}")(x)
        y = layers.Dense(INNER, activation=activation, name=f"widen{number}")(y)
        x = layers.Add()([x, layers.Dense(WIDTH, name=f"narrow{number}")(y)])
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(tokens_in, layers.Dense(CLASSES, name="head")(x))
    randomise(model)
    return model


class Prenorm(nn.Module):
    def __init__(self, eps: float = 1e-6, activation: Any = nn.functional.gelu):
        super().__init__()
        self.activation = activation
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        for number in range(BLOCKS):
            attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
            self.add_module(f"attention_norm{number}", nn.LayerNorm(WIDTH, eps))
            self.add_module(f"attention{number}", attention)
            self.add_module(f"mlp_norm{number}", nn.LayerNorm(WIDTH, eps))
            self.add_module(f"widen{number}", nn.Linear(WIDTH, INNER))
            self.add_module(f"narrow{number}", nn.Linear(INNER, WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids)
        part = self._modules
        for n in range(BLOCKS):
            y = part[f"attention_norm{n}"](x)
            x = x + part[f"attention{n}"](y, y, y, need_weights=False)[0]
            y = part[f"widen{n}"](part[f"mlp_norm{n}"](x))
            x = x + part[f"narrow{n}"](self.activation(y))
        return self.head(x.mean(1))


@pytest.mark.parametrize("file", ["prenorm.keras", "prenorm.weights.h5"])
def test_prenorm_layer_by_layer_without_a_rename(keras, sentences, tmp_path, file):
    trained = keras_prenorm(keras)
    path = tmp_path / file
    trained.save_weights(path) if file.endswith("h5") else trained.save(path)
    model = Prenorm()
    plan = port(model, path)
    assert plan.audits == ()
    layers = outputs_by_layer(keras, trained, sentences, ["attention0", "narrow0", "attention1"])
    assert_agrees(model, sentences, numbers(trained(sentences)), layers)


def test_prenorm_in_float64(keras, sentences, tmp_path):
    """With SiLU: TensorFlow's GELU rounds the root of 2 to float32, and is off by 1e-9."""
    with floats(keras, "float64"):
        trained = keras_prenorm(keras, "silu")
        expected = numbers(trained(sentences))
    trained.save(tmp_path / "prenorm.keras")
    model = Prenorm(activation=nn.functional.silu).double()
    port(model, tmp_path / "prenorm.keras")
    assert_agrees(model, sentences, expected)


def test_torchs_epsilon_departs_at_the_norm_that_the_plan_named(keras, sentences, tmp_path):
    trained = keras_prenorm(keras)
    trained.save(tmp_path / "prenorm.keras")
    model = Prenorm(eps=1e-5)
    plan = port(model, tmp_path / "prenorm.keras")
    names = ["tokens", "attention_norm0", "attention0"]
    layers = outputs_by_layer(keras, trained, sentences, names)
    check = tws.verify_port(model, sentences, numbers(trained(sentences)), layers=layers)
    assert check.first_departure == "attention_norm0"
    assert plan.audits[0].modules[0] == "attention_norm0"


# -- post-norm, as layers within layers, for torch's TransformerEncoderLayer -----------------------


def keras_postnorm(keras: Any) -> Any:
    """A model of the user's own classes, with the attributes that torch's layer has."""
    layers = keras.layers

    class EncoderLayer(layers.Layer):
        def __init__(self):
            super().__init__()
            self.self_attn = layers.MultiHeadAttention(HEADS, WIDTH // HEADS)
            self.norm1 = layers.LayerNormalization(epsilon=1e-5)
            self.linear1 = layers.Dense(INNER, activation="relu")
            self.linear2 = layers.Dense(WIDTH)
            self.norm2 = layers.LayerNormalization(epsilon=1e-5)

        def build(self, shape: Any) -> None:
            if keras.__name__ == "keras":  # the older one builds what it calls
                self.self_attn.build(shape, shape)
                for layer in (self.norm1, self.linear1, self.norm2):
                    layer.build(shape)
                self.linear2.build((*shape[:-1], INNER))

        def call(self, x: Any) -> Any:
            x = self.norm1(x + self.self_attn(x, x))
            return self.norm2(x + self.linear2(self.linear1(x)))

    class Encoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.tokens = layers.Embedding(TOKENS, WIDTH)
            self.places = layers.Embedding(LENGTH, WIDTH)
            self.blocks = [EncoderLayer() for _ in range(BLOCKS)]
            self.head = layers.Dense(CLASSES)

        def call(self, ids: Any) -> Any:
            x = self.tokens(ids) + self.places(np.arange(LENGTH))
            for block in self.blocks:
                x = block(x)
            return self.head(x[:, 0])

    model = Encoder()
    model(np.zeros((1, LENGTH), np.int32))
    randomise(model)
    return model


class Postnorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, batch_first=True) for _ in range(BLOCKS)
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places.weight
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def test_torchs_own_encoder_layers_by_the_names_of_attributes(sentences, tmp_path):
    trained = keras_postnorm(pytest.importorskip("tf_keras"))
    pytest.importorskip("tensorflow").train.Checkpoint(trained).write(str(tmp_path / "ckpt"))
    model = Postnorm()
    port(model, tmp_path / "ckpt")
    assert_agrees(model, sentences, numbers(trained(sentences)))


def test_a_file_of_keras_3_needs_scopes_where_it_does_not_keep_attributes(
    keras, sentences, tmp_path
):
    """In a list, layers are called by their class; behind "layers" in the alphabet, all are."""
    trained = keras_postnorm(keras)
    trained.save_weights(tmp_path / "postnorm.weights.h5")
    scopes = {
        "blocks.0.": "blocks/encoder_layer/",
        "blocks.1.": "blocks/encoder_layer_1/",
        "tokens.": "layers/embedding/",
        "places.": "layers/embedding_1/",
    }
    model = Postnorm()
    port(model, tmp_path / "postnorm.weights.h5", var_name_to_prev_var_name=scopes)
    assert_agrees(model, sentences, numbers(trained(sentences)))
