"""Keras models that are built on a tape, and torch twins that are built from it.

A model is a function of a `Tape`. It makes layers and calls them through the tape, which notes who
was called with what. The twin has a torch module for each layer, of the layer's name and made from
its `get_config()`, and plays the tape. All tensors between layers are laid out as in Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from zoo.modules import module_of


@dataclass
class Call:
    """A layer, or a tape of a model within, that was called."""

    callee: Any
    inputs: tuple[int, ...]
    output: int
    how: dict[str, Any]


@dataclass(eq=False)
class Tape:
    """What a model is made of, in the order in which it is called."""

    keras: Any
    name: str
    tensors: list[Any] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    model: Any = None

    @property
    def L(self) -> Any:
        return self.keras.layers

    def input(self, *shape: int, dtype: str = "float32") -> int:
        tensor = self.keras.Input(shape, dtype=dtype)
        self.inputs.append(self._note(tensor))
        return self.inputs[-1]

    def __call__(self, layer: Any, *inputs: int, **how: Any) -> int:
        """Calls a layer, or a model that `within` has made, on tensors by their numbers."""
        given = [self.tensors[number] for number in inputs]
        called = layer.model if isinstance(layer, Tape) else layer
        joined = how.pop("joined", False)
        output = called(given) if joined else called(*given, **how)
        self.calls.append(Call(layer, inputs, self._note(output), how))
        return self.calls[-1].output

    def within(self, name: str, build: Callable[[Tape], int]) -> Tape:
        """A model to be called as a layer."""
        return record(self.keras, build, name)

    def _note(self, tensor: Any) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def record(keras: Any, build: Callable[[Tape], Any], name: str = "zoo") -> Tape:
    """The tape of a model, and the model."""
    tape = Tape(keras, name)
    found = build(tape)
    tape.outputs = [found] if isinstance(found, int) else list(found)
    inputs = [tape.tensors[number] for number in tape.inputs]
    outputs = [tape.tensors[number] for number in tape.outputs]
    tape.model = keras.Model(
        inputs[0] if len(inputs) == 1 else inputs,
        outputs[0] if len(outputs) == 1 else outputs,
        name=name,
    )
    return tape


class Twin(nn.Module):
    """The same model in torch."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = [tape]  # in a list, so that it is no module's business
        self._runs: dict[int, Callable[..., torch.Tensor]] = {}
        for call in tape.calls:
            if id(call.callee) in self._runs:
                continue
            if isinstance(call.callee, Tape):
                module: nn.Module | None = Twin(call.callee)
                run: Callable[..., torch.Tensor] = module
                name = call.callee.name
            else:
                shapes = [tuple(tape.tensors[number].shape) for number in call.inputs]
                module, run = module_of(call.callee, shapes)
                name = call.callee.name
            if module is not None:
                self.add_module(name, module)
            self._runs[id(call.callee)] = run

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        values, outputs = self.play(*inputs), self._tape[0].outputs
        found = [values[number].flatten(1) for number in outputs]
        return torch.cat(found, 1) if len(found) > 1 else values[outputs[0]]

    def play(self, *inputs: torch.Tensor) -> dict[int, torch.Tensor]:
        """The values of all tensors on the tape, by their numbers."""
        tape = self._tape[0]
        values = dict(zip(tape.inputs, inputs, strict=True))
        for call in tape.calls:
            given = [values[number] for number in call.inputs]
            values[call.output] = self._runs[id(call.callee)](*given, **call.how)
        return values


def folders_of(tape: Tape, before: str = "") -> Iterator[tuple[str, str]]:
    """Layers by name, and the folders in which a file without names of layers has them.

    A list of layers is written in the model's order, by class and number (keras
    `saving/saving_lib.py`); a layer that was written already is left out.
    """
    tapes = {
        id(call.callee.model): call.callee for call in tape.calls if isinstance(call.callee, Tape)
    }
    counts: dict[str, int] = {}
    for layer in tape.model.layers:
        kind = _snake_case(type(layer).__name__)
        number = counts[kind] = counts.get(kind, -1) + 1
        folder = f"{before}layers/{kind}{f'_{number}' if number else ''}/"
        if id(layer) in tapes:
            inner = folders_of(tapes[id(layer)], folder)
            yield from ((f"{layer.name}.{name}", path) for name, path in inner)
        elif layer.weights:
            yield f"{layer.name}.", folder


def _snake_case(name: str) -> str:
    import re

    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
