"""Warm starts drawn at random, and what TensorFlow and torch_warmstart make of each.

A `Scenario` is a checkpoint, a model and settings, as TensorFlow names things. Its repr is the
code that makes it, so that a failing one can be pasted into an `@example`. Values are not part of
a scenario: every tensor is filled from its own seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tf_oracle
import torch
from tf_oracle import tf, tf1
from torch import nn

import torch_warmstart as tws

Shape = tuple[int, ...]
Cut = tuple[int, int]  # an axis, and into how many parts
_START_SEED = 1_000_000


@dataclass(frozen=True)
class Stored:
    """A tensor of the checkpoint, cut as a `fixed_size_partitioner` cuts."""

    key: str
    shape: Shape
    dtype: str = "float32"
    cut: Cut | None = None
    seed: int = 0
    raw: bytes | None = None  # the values themselves, where the seed does not say them

    @property
    def values(self) -> np.ndarray:
        if self.raw is not None:
            return np.frombuffer(self.raw, np.dtype(self.dtype)).reshape(self.shape)
        return any_finite(self.shape, self.dtype, self.seed)


@dataclass(frozen=True)
class Variable:
    """A variable of the new model; `cut` is TensorFlow's side only."""

    name: str
    shape: Shape
    dtype: str = "float32"
    trainable: bool = True
    cut: Cut | None = None


@dataclass(frozen=True)
class Vocab:
    """The fields of both sides' VocabInfo, with the files' contents."""

    new: bytes
    new_size: int
    old: bytes
    old_size: int = -1
    oov: int = 0
    backup: float | None = None
    axis: int = 0


@dataclass(frozen=True)
class Objects:
    """A selection by the variables themselves."""

    names: tuple[str, ...]


Selection = str | list[str] | Objects | None


@dataclass(frozen=True)
class Scenario:
    stored: tuple[Stored, ...]
    variables: tuple[Variable, ...]
    selection: Selection = ".*"
    vocabs: Mapping[str, Vocab] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    by_directory: bool = False

    def variable(self, name: str) -> Variable:
        return next(v for v in self.variables if v.name == name)

    def tensor(self, key: str) -> Stored | None:
        return next((s for s in self.stored if s.key == key), None)

    def source(self, name: str) -> Stored | None:
        """What TensorFlow takes a variable from."""
        return self.tensor(self.renames.get(name, name))


@dataclass(frozen=True)
class Outcome:
    """The values of all variables afterwards, or why there are none."""

    values: dict[str, np.ndarray] | None
    refusal: str = ""
    kept: frozenset[str] = frozenset()  # variables that our report calls so

    def differing(self, other: Mapping[str, np.ndarray]) -> set[str]:
        """The variables that hold something else than they do in `other`."""
        assert self.values is not None
        assert self.values.keys() == other.keys()
        return {name for name in other if differ(self.values[name], other[name])}


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype != other.dtype or one.shape != other.shape or one.tobytes() != other.tobytes()


# -- values ----------------------------------------------------------------------------------------


def any_finite(shape: Shape, dtype: str, seed: int) -> np.ndarray:
    """Any bits that are a finite number: a NaN does not keep its payload through a cast."""
    random = np.random.default_rng(seed)
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    values = np.frombuffer(random.bytes(size), np.dtype(dtype)).copy()
    if np.dtype(dtype).kind not in "iu":
        with np.errstate(invalid="ignore"):  # bfloat16 warns of the NaNs that are asked about
            values[~np.isfinite(values)] = 1
    return values.reshape(shape)


def start_values(scenario: Scenario) -> dict[str, np.ndarray]:
    return {
        v.name: any_finite(v.shape, v.dtype, _START_SEED + at)
        for at, v in enumerate(scenario.variables)
    }


def to_torch(values: np.ndarray) -> torch.Tensor:
    if values.dtype == np.dtype("bfloat16"):
        return torch.from_numpy(values.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(values.copy())


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().clone()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.dtype("bfloat16"))
    return tensor.numpy()


# -- files -----------------------------------------------------------------------------------------


def write_checkpoint(scenario: Scenario, folder: Path) -> str:
    """Writes the checkpoint by the op that TensorFlow's Saver runs; the argument that finds it."""
    prefix = str(folder / "model-7")
    names, slices, tensors = [], [], []
    for stored in scenario.stored:
        for piece, spec in pieces(stored):
            names.append(stored.key)
            slices.append(spec)
            tensors.append(tf.constant(piece))
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=slices, tensors=tensors)
    tf1.train.update_checkpoint_state(str(folder), prefix)
    return str(folder) if scenario.by_directory else prefix


def pieces(stored: Stored) -> list[tuple[np.ndarray, str]]:
    """The parts of a tensor, each with TensorFlow's spec of where it belongs."""
    values = stored.values
    if part_count(stored.shape, stored.cut) == 1:
        return [(values, "")]
    assert stored.cut is not None
    axis, parts = stored.cut
    start, found = 0, []
    for piece in np.array_split(values, min(parts, stored.shape[axis]), axis):
        spec = [f"0,{size}" for size in stored.shape]
        spec[axis] = f"{start},{piece.shape[axis]}"
        sizes = " ".join(str(size) for size in stored.shape)
        found.append((np.ascontiguousarray(piece), f"{sizes} {':'.join(spec)}"))
        start += piece.shape[axis]
    return found


def part_count(shape: Shape, cut: Cut | None) -> int:
    return 1 if cut is None else min(cut[1], shape[cut[0]])


def vocab_fields(vocab: Vocab, folder: Path, number: int) -> dict[str, Any]:
    """Writes both files; the fields that VocabInfo has on both sides."""
    paths = {"new": folder / f"new_{number}.txt", "old": folder / f"old_{number}.txt"}
    paths["new"].write_bytes(vocab.new)
    paths["old"].write_bytes(vocab.old)
    return {
        "new_vocab": str(paths["new"]),
        "new_vocab_size": vocab.new_size,
        "num_oov_buckets": vocab.oov,
        "old_vocab": str(paths["old"]),
        "old_vocab_size": vocab.old_size,
        "axis": vocab.axis,
    }


# -- TensorFlow's side -----------------------------------------------------------------------------

_TF_REFUSALS = (ValueError, TypeError, IndexError, NotImplementedError, re.error, tf.errors.OpError)


def run_tensorflow(scenario: Scenario, folder: Path) -> Outcome:
    checkpoint = write_checkpoint(scenario, folder)
    with tf1.Graph().as_default(), tf1.Session() as session:
        variables = {v.name: _make_variable(v, start_values(scenario)) for v in scenario.variables}
        try:
            tf1.train.warm_start(
                checkpoint,
                _tf_selection(scenario.selection, variables),
                _tf_vocabs(scenario, folder) or None,
                dict(scenario.renames) or None,
            )
            session.run(tf1.global_variables_initializer())
        except _TF_REFUSALS as error:
            return Outcome(None, f"{type(error).__name__}: {error}")
        parts = session.run(variables)
    return Outcome({v.name: _joined(v, parts[v.name]) for v in scenario.variables})


def _make_variable(variable: Variable, start: Mapping[str, np.ndarray]) -> list[Any]:
    partitioner = None
    if variable.cut is not None:
        axis, parts = variable.cut
        partitioner = tf1.fixed_size_partitioner(parts, axis)
    made = tf1.get_variable(
        variable.name,
        shape=variable.shape,
        dtype=start[variable.name].dtype,
        initializer=tf_oracle._initializer(start[variable.name]),
        trainable=variable.trainable,
        partitioner=partitioner,
    )
    return [made] if variable.cut is None else list(made)


def _joined(variable: Variable, parts: list[np.ndarray]) -> np.ndarray:
    if variable.cut is None:
        return np.asarray(parts[0])
    return np.concatenate(parts, variable.cut[0])


def _tf_selection(selection: Selection, variables: Mapping[str, list[Any]]) -> Any:
    if isinstance(selection, Objects):
        return [part for name in selection.names for part in variables[name]]
    return selection


def _tf_vocabs(scenario: Scenario, folder: Path) -> dict[str, Any]:
    return {
        name: tf_oracle.vocab_info(
            **vocab_fields(vocab, folder, number),
            backup_initializer=None
            if vocab.backup is None
            else tf_oracle.constant_initializer(vocab.backup),
        )
        for number, (name, vocab) in enumerate(scenario.vocabs.items())
    }


# -- our side --------------------------------------------------------------------------------------


def run_ours(scenario: Scenario, folder: Path) -> Outcome:
    """Our warm start. A refusal must leave the model as it was."""
    checkpoint = write_checkpoint(scenario, folder)
    start = start_values(scenario)
    model = make_model(scenario, start)
    names = torch_names(scenario.variables)
    tensors = {name: model.state_dict(keep_vars=True)[names[name]] for name in names}
    selection = scenario.selection
    if isinstance(selection, Objects):
        selection = [tensors[name] for name in selection.names]
    try:
        settings = tws.WarmStartSettings(
            checkpoint, selection, _our_vocabs(scenario, folder), scenario.renames
        )
        report = tws.warm_start(model, settings)
    except tws.WarmStartError as error:
        after = {name: to_numpy(tensor) for name, tensor in tensors.items()}
        assert Outcome(after).differing(start) == set(), "a refusal changed the model"
        return Outcome(None, f"{type(error).__name__}: {error}")
    kept = frozenset(name for name in names if report[names[name]].state == "kept")
    return Outcome({name: to_numpy(tensor) for name, tensor in tensors.items()}, kept=kept)


def _our_vocabs(scenario: Scenario, folder: Path) -> dict[str, tws.VocabInfo]:
    return {
        name: tws.VocabInfo(
            **vocab_fields(vocab, folder, number),
            backup_initializer=None
            if vocab.backup is None
            else partial(nn.init.constant_, val=vocab.backup),
        )
        for number, (name, vocab) in enumerate(scenario.vocabs.items())
    }


def make_model(scenario: Scenario, start: Mapping[str, np.ndarray]) -> nn.Module:
    """Plain modules of one's own, so that no layout changes; not trainable means a buffer."""
    model = nn.Module()
    names = torch_names(scenario.variables)
    for variable in scenario.variables:
        *path, leaf = names[variable.name].split(".")
        module = model
        for child in path:
            if not hasattr(module, child):
                module.add_module(child, nn.Module())
            module = module.get_submodule(child)
        values = to_torch(start[variable.name])
        if variable.trainable:
            module.register_parameter(leaf, nn.Parameter(values, values.is_floating_point()))
        else:
            module.register_buffer(leaf, values)
    return model


def torch_names(variables: Iterable[Variable]) -> dict[str, str]:
    """`a.b` for `a/b`; beside a variable `a` there is no module `a`, so there `a/b` is a leaf."""
    taken = {variable.name for variable in variables}
    names = {}
    for name in taken:
        path, rest = [], name.split("/")
        while len(rest) > 1 and "/".join([*path, rest[0]]) not in taken:
            path.append(rest.pop(0))
        names[name] = ".".join([*path, "/".join(rest)])
    return names
