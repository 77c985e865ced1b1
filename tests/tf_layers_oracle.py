"""Real layers of TensorFlow with random weights: what they compute, and a file that has them.

Many layers are made, filled, called and saved by TensorFlow in one go. A case says which:

    name        of the layer
    shape       of an input, without the batch
    num_ids     if the inputs are ids, what they are below
    layer       its class
    options     for the class
    before      what is done to the inputs first
    after       what is done to the outputs

Inputs, outputs and gradients are numpy arrays as TensorFlow has them, channels last.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the imports: they log a page otherwise
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf
import tf_keras
from tf_keras.src.legacy_tf_layers import convolutional, core, normalization

tf1 = tf.compat.v1
LIBRARIES = {
    "keras": keras.layers,  # Keras 3
    "tf_keras": tf_keras.layers,  # Keras 2
    # tf.compat.v1.layers, which TensorFlow itself shows only without Keras 3
    "tf1": SimpleNamespace(**{**vars(core), **vars(convolutional), **vars(normalization)}),
}
BATCH = 3


@dataclass(frozen=True)
class Outcome:
    """What a layer computes, and the gradient of `sum(outputs * directions)`."""

    inputs: np.ndarray
    outputs: np.ndarray
    directions: np.ndarray
    gradient: np.ndarray | None  # None: the inputs are ids


def save_layers(
    library: str, file_format: str, dtype: str, cases: Sequence[Any], folder: Path
) -> tuple[str, dict[str, Outcome]]:
    """Makes layers and saves them; returns the path, and what each computes."""
    random = np.random.default_rng(3)
    if library == "tf1":
        return _save_graph(file_format, dtype, cases, folder, random)
    layers = {case.name: _make_layer(library, case, dtype) for case in cases}
    functional = None
    if file_format != "checkpoint":
        functional = _functional({"keras": keras, "tf_keras": tf_keras}[library], cases, layers)
    outcomes = {}
    for case in cases:
        inputs = tf.constant(_inputs(case, dtype, random))
        _call(case, layers[case.name], inputs)  # builds it
        _fill(layers[case.name], random)
        outcomes[case.name] = _outcome(case, layers[case.name], inputs, random)
    return _save(library, file_format, layers, functional, folder), outcomes


def _save(
    library: str, file_format: str, layers: Mapping[str, Any], functional: Any, folder: Path
) -> str:
    path = str(folder / f"{library}{'' if file_format == 'checkpoint' else file_format}")
    if file_format == ".keras":
        functional.save(path)
    elif file_format != "checkpoint":
        functional.save_weights(path)
    elif library == "tf_keras":
        _subclassed(tf_keras.Model, layers).save_weights(path, save_format="tf")
    else:
        tf.train.Checkpoint(root=_subclassed(keras.Model, layers)).write(path)
    return path


def _subclassed(model_class: Any, layers: Mapping[str, Any]) -> Any:
    class Zoo(model_class):
        def __init__(self) -> None:
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)
            self.built = True

    return Zoo()


def _functional(library: Any, cases: Sequence[Any], layers: Mapping[str, Any]) -> Any:
    inputs, outputs = [], []
    for case in cases:
        dtype = "int32" if case.num_ids else layers[case.name].dtype
        shape = tuple(case.before(tf.zeros((BATCH, *case.shape))).shape[1:])
        inputs.append(library.Input(shape, dtype=dtype, name=f"into_{case.name}"))
        outputs.append(layers[case.name](inputs[-1]))
    return library.Model(inputs, outputs)


def _make_layer(library: str, case: Any, dtype: str) -> Any:
    layer_class = getattr(LIBRARIES[library], case.layer)
    return layer_class(**case.options, name=case.name, dtype=dtype)


def _inputs(case: Any, dtype: str, random: np.random.Generator) -> np.ndarray:
    shape = (BATCH, *case.shape)
    if case.num_ids:
        return random.integers(0, case.num_ids, shape, dtype=np.int32)
    return random.standard_normal(shape).astype(dtype)


def _call(case: Any, layer: Any, inputs: Any) -> Any:
    return case.after(layer(case.before(inputs)))


def _fill(layer: Any, random: np.random.Generator) -> None:
    """No weight stays what it begins with, zeros and ones above all."""
    layer.set_weights([_value(weight.name, weight.shape, random) for weight in layer.weights])


def _value(name: str, shape: Any, random: np.random.Generator) -> np.ndarray:
    if "variance" in name:
        return random.uniform(0.5, 2, shape)
    return random.standard_normal(shape)


def _outcome(case: Any, layer: Any, inputs: Any, random: np.random.Generator) -> Outcome:
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = _call(case, layer, inputs)
        directions = random.standard_normal(outputs.shape).astype(outputs.dtype.as_numpy_dtype)
        target = tf.reduce_sum(outputs * directions)
    gradient = None if case.num_ids else tape.gradient(target, inputs).numpy()
    return Outcome(inputs.numpy(), outputs.numpy(), directions, gradient)


def _save_graph(
    version: str, dtype: str, cases: Sequence[Any], folder: Path, random: np.random.Generator
) -> tuple[str, dict[str, Outcome]]:
    """The same in a graph of TensorFlow 1: variables know their names only, and a Saver saves."""
    with tf1.Graph().as_default(), tf1.Session() as session:
        fetches = {}
        for case in cases:
            inputs = tf.constant(_inputs(case, dtype, random))
            outputs = _call(case, _make_layer("tf1", case, dtype), inputs)
            directions = random.standard_normal(outputs.shape).astype(dtype)
            gradient = tf1.gradients(outputs * directions, inputs)[0]
            fetches[case.name] = (inputs, outputs, tf.constant(directions), gradient)
        for variable in tf1.global_variables():
            variable.load(_value(variable.name, variable.shape, random), session)
        outcomes = {name: Outcome(*session.run(of_one)) for name, of_one in fetches.items()}
        saver = tf1.train.Saver(write_version=getattr(tf1.train.SaverDef, version))
        path = saver.save(session, str(folder / version), write_meta_graph=False)
    return path, outcomes
