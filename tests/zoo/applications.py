"""Models of keras.applications: their tapes, read from their configurations, and their weights.

A functional model's configuration lists its layers, each with the tensors it is called on. So any
such model has a tape, whoever built it, and a twin that is made from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from zoo.tape import Call, Tape, Twin

CLASSES = 7
SIZES = {"InceptionV3": 75, "MobileNetV3Small": 64, "EfficientNetV2B0": 64, "ResNet50": 64}
_LEFT_OUT = ("name", "training")  # of what layers are called with: twins are in eval mode


def application(keras: Any, name: str) -> Tape:
    """One of the models with weights of which no two are alike, and such statistics."""
    shape = (SIZES[name], SIZES[name], 3)
    make = getattr(keras.applications, name)
    tape = tape_of(keras, make(weights=None, input_shape=shape, classes=CLASSES))
    rng = np.random.default_rng(7)
    for weight in tape.model.weights:
        called = str(getattr(weight, "path", weight.name)).split("/")[-1].removesuffix(":0")
        weight.assign(_drawn(rng, called, tuple(weight.shape)))
    return tape


def _drawn(rng: Any, called: str, shape: tuple[int, ...]) -> np.ndarray:
    """Such that what goes through many layers neither grows nor fades."""
    if called in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) == 1:
        return rng.normal(0, 0.2, shape)
    fan_in = np.prod(shape[:2] if called == "depthwise_kernel" else shape[:-1])
    return rng.normal(0, np.sqrt(0.7 / fan_in), shape)


def tape_of(keras: Any, model: Any) -> Tape:
    """The tape of a functional model, each of whose layers is called once."""
    tape = Tape(keras, model.name, model=model)
    callees = {each.name: each for each in getattr(model, "operations", model.layers)}
    config = model.get_config()
    numbers: dict[str, int] = {}
    for layer in config["layers"]:
        name = layer["config"]["name"]
        numbers[name] = tape._note(callees[name].output)
        if not layer["inbound_nodes"]:
            tape.inputs.append(numbers[name])
            continue
        (node,) = layer["inbound_nodes"]
        called, how = _told(node)
        inputs = tuple(numbers[each] for each in called)
        tape.calls.append(Call(callees[name], inputs, numbers[name], how))
    tape.outputs = [numbers[name] for name in _histories(config["output_layers"])]
    return tape


def _told(node: Any) -> tuple[list[str], dict[str, Any]]:
    """The layers whose tensors one is called on, and what else it is given."""
    if isinstance(node, Mapping):  # Keras 3
        constants = [each for each in node["args"] if isinstance(each, float)]
        how = {**node["kwargs"], **({"y": constants[0]} if constants else {})}
        called = list(_histories(node["args"]))
    else:  # tf_keras: name, node, tensor and what else, of each tensor or of the one
        each_of = node if isinstance(node[0], list | tuple) else [node]
        called = [each[0] for each in each_of]
        how = {key: value for each in each_of for key, value in each[3].items()}
    given = {key: value for key, value in how.items() if value is not None}
    return called, {key: value for key, value in given.items() if key not in _LEFT_OUT}


def _histories(found: Any) -> Iterator[str]:
    """The names of layers in what Keras keeps of tensors: `[name, node, tensor]`."""
    if isinstance(found, Mapping):
        found = found.get("config", {}).get("keras_history", ())
    if not isinstance(found, list | tuple):
        return
    if len(found) == 3 and isinstance(found[0], str):
        yield found[0]
        return
    for each in found:
        yield from _histories(each)


@dataclass(frozen=True)
class Watched:
    """The values of all tensors of a model, for one input."""

    given: np.ndarray
    values: Mapping[int, np.ndarray]

    def furthest(self, tape: Tape, twin: Twin) -> tuple[float, str]:
        """How far the twin's values are from these, relative to the largest of each, and where."""
        with torch.no_grad():
            found = twin.play(torch.tensor(self.given))
        apart = []
        for call in tape.calls:
            expected = self.values[call.output]
            error = float(np.abs(found[call.output].numpy() - expected).max())
            apart.append((error / max(float(np.abs(expected).max()), 1e-3), call.callee.name))
        return max(apart)


def watch(tape: Tape) -> Watched:
    """Runs the model on a picture of its size."""
    shape = (2, *tuple(tape.tensors[tape.inputs[0]].shape)[1:])
    given = np.random.default_rng(5).uniform(0, 255, shape).astype("float32")
    watched = [call.output for call in tape.calls]
    model = tape.keras.Model(tape.model.inputs, [tape.tensors[number] for number in watched])
    found = [np.asarray(each) for each in model(given)]
    assert all(np.isfinite(each).all() and np.abs(each).max() > 1e-3 for each in found)
    return Watched(given, dict(zip(watched, found, strict=True)))
