"""Makes the files that the port is made from and proved with: what a Keras user has.

    pip install tensorflow-cpu
    python examples/port_keras/make_reference.py

A small network is trained for a minute to read numbers in noisy pictures: convolutions, then an
LSTM in both directions along the columns, which says for every second column which digit is there.
Its layers have the names that Keras gives them by itself.

    reader.keras     the trained model
    recorded.npz     what it computes for some pictures: inputs, outputs, and every layer that has
                     weights, under the name that this layer has in the PyTorch model
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
from keras import layers

FOLDER = Path(__file__).resolve().parent
SEED = 0

HEIGHT, WIDTH = 16, 48
STEP = 2  # columns of a picture for one of the answers
NO_DIGIT = 10
NOISE = 0.25
EPOCHS, TRAINING, HELD_OUT, RECORDED = 12, 6000, 1000, 4

# Digits as they were on small displays: seven rows of five dots.
DIGITS = (
    " ### |#   #|#  ##|# # #|##  #|#   #| ### ",
    "  #  | ##  |  #  |  #  |  #  |  #  | ### ",
    " ### |#   #|    #|   # |  #  | #   |#####",
    "#####|   # |  #  |   # |    #|#   #| ### ",
    "   # |  ## | # # |#  # |#####|   # |   # ",
    "#####|#    |#### |    #|    #|#   #| ### ",
    "  ## | #   |#    |#### |#   #|#   #| ### ",
    "#####|    #|   # |  #  | #   | #   | #   ",
    " ### |#   #|#   #| ### |#   #|#   #| ### ",
    " ### |#   #|#   #| ####|    #|   # | ##  ",
)
GLYPHS = np.array([[[dot == "#" for dot in row] for row in d.split("|")] for d in DIGITS])


def draw_pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of numbers, channels last, and which digit each column shows."""
    rng = np.random.default_rng(seed)
    pictures = rng.normal(0, NOISE, (count, HEIGHT, WIDTH, 1))
    columns = np.full((count, WIDTH), NO_DIGIT)
    for picture, labels in zip(pictures, columns, strict=True):
        at = rng.integers(0, 8)
        while True:
            digit, tall = rng.integers(0, 10), rng.integers(1, 3)
            glyph = GLYPHS[digit].repeat(tall, axis=0)
            top = rng.integers(0, HEIGHT - len(glyph) + 1)
            if at + glyph.shape[1] > WIDTH:
                break
            picture[top : top + len(glyph), at : at + 5, 0] += glyph
            labels[at : at + 5] = digit
            at += 5 + rng.integers(1, 9)
    return pictures.astype(np.float32), columns[:, ::STEP]


def make_reader() -> keras.Model:
    """The network. Nothing is named, and activations are layers of their own."""
    pictures = layers.Input((HEIGHT, WIDTH, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(pictures)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(16, 3, strides=(2, 1), padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Permute((2, 1, 3))(x)  # columns first
    x = layers.Reshape((WIDTH // STEP, -1))(x)
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(x)
    return keras.Model(pictures, layers.Dense(11)(x), name="reader")


def train(reader: keras.Model) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    reader.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"])
    reader.fit(*draw_pictures(TRAINING, SEED), batch_size=64, epochs=EPOCHS, verbose=2)
    _, accuracy = reader.evaluate(*draw_pictures(HELD_OUT, SEED + 1), verbose=0)
    print(f"Of {HELD_OUT:,} other pictures, {accuracy:.1%} of the columns are read as they are.")


def record(reader: keras.Model) -> dict[str, np.ndarray]:
    """What it computes in inference; layers as they are, channels last."""
    pictures, columns = draw_pictures(RECORDED, SEED + 2)
    layer = {
        "conv1": "conv2d",
        "norm1": "batch_normalization",
        "conv2": "conv2d_1",
        "norm2": "batch_normalization_1",
        "lstm": "bidirectional",
        "digits": "dense",
    }
    outputs = [reader.get_layer(theirs).output for theirs in layer.values()]
    computed = keras.Model(reader.input, outputs)(pictures, training=False)
    arrays = {
        f"layers/{mine}": np.array(value) for mine, value in zip(layer, computed, strict=True)
    }
    # Inputs are as the PyTorch model takes them: channels first.
    arrays["inputs/0"] = np.moveaxis(pictures, -1, 1)
    arrays["outputs"] = arrays.pop("layers/digits")
    return arrays | {"columns": columns}


def main() -> None:
    keras.utils.set_random_seed(SEED)
    reader = make_reader()
    train(reader)
    bare = keras.models.clone_model(reader)  # the same names, and no optimizer
    bare.set_weights(reader.get_weights())
    bare.save(FOLDER / "reader.keras")
    np.savez_compressed(FOLDER / "recorded.npz", **record(reader))


if __name__ == "__main__":
    main()
