"""Warm starts drawn at random, and what TensorFlow and torch_warmstart make of each.

A `Scenario` is a checkpoint, a model and settings, as TensorFlow names things. Its repr is the
code that makes it, so that a failing one can be pasted into an `@example`. Values are not part of
a scenario: every tensor is filled from its own seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tf_oracle
import torch
from hypothesis import strategies as st
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


# -- drawing: names, shapes, vocabularies ----------------------------------------------------------

SEGMENTS = ("a", "b", "ab", "w", "w1")
DTYPES = ("float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool")
ODD_ENTRIES = (
    *(b"a", b"A", b"ab", b" ", b" a", b"a ", b"\t", b"a\tb", b"a\rb", b"a\r", b"\x0ba", b"\x00"),
    *(b"\xff", b"\x80a", b"\xef\xbb\xbfa", b"\xc3\xa9", b"e\xcc\x81", b"\xe2\x80\xa8", b"x" * 20),
)

variable_names = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=3).map("/".join)
entries_of_vocabularies = st.sampled_from(ODD_ENTRIES) | st.integers(0, 30).map(lambda n: b"%d" % n)
seeds = st.integers(0, 2**16)


def sometimes(draw: st.DrawFn, percent: int) -> bool:
    return draw(st.integers(0, 99)) >= 100 - percent


@dataclass(frozen=True)
class Pair:
    """A variable, the tensor it came from (by whatever key), and how its vocabulary changed."""

    variable: Variable
    stored: Stored
    vocab: Vocab | None = None


@st.composite
def cuts(draw: st.DrawFn, shape: Shape) -> Cut | None:
    if not shape or not sometimes(draw, 30):
        return None
    axis = draw(st.sampled_from([0, 0, 0, len(shape) - 1]))
    return axis, draw(st.integers(1, 3))


@st.composite
def plain_pairs(draw: st.DrawFn, name: str) -> Pair:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    shape = () if sometimes(draw, 5) else shape
    dtype = draw(st.sampled_from(DTYPES)) if sometimes(draw, 15) else "float32"
    trainable = not sometimes(draw, 25)
    return Pair(
        Variable(name, shape, dtype, trainable, draw(cuts(shape))),
        Stored(name, shape, dtype, draw(cuts(shape)), draw(seeds)),
    )


@st.composite
def remapped_pairs(draw: st.DrawFn, name: str) -> Pair:
    vocab, old_lines = draw(vocabs())
    width = draw(st.integers(1, 3))
    old_size = old_lines + draw(st.sampled_from([0, 0, 1, 2]))
    sizes = [(old_size, width), (vocab.new_size + vocab.oov, width)]
    old_shape, new_shape = sizes if vocab.axis == 0 else [size[::-1] for size in sizes]
    trainable = not sometimes(draw, 15)
    cut = draw(cuts(new_shape))
    if cut is not None and not sometimes(draw, 10):
        cut = (0, cut[1])
    return Pair(
        Variable(name, new_shape, trainable=trainable, cut=cut),
        Stored(name, old_shape, cut=draw(cuts(old_shape)), seed=draw(seeds)),
        vocab,
    )


@st.composite
def vocabs(draw: st.DrawFn) -> tuple[Vocab, int]:
    """A change of vocabulary, and how many lines the old file has."""
    count = draw(st.integers(2, 9))
    entries = draw(st.lists(entries_of_vocabularies, min_size=count, max_size=count, unique=True))
    old, new = draw(some_of(entries)), draw(some_of(entries))
    axis = draw(st.sampled_from([0, 0, 1]))
    shorter = axis == 0 and sometimes(draw, 30)
    vocab = Vocab(
        new=draw(files_of(new)),
        new_size=draw(st.integers(1, len(new))) if sometimes(draw, 30) else len(new),
        old=draw(files_of(old)),
        old_size=draw(st.integers(1, len(old))) if shorter else -1,
        oov=draw(st.sampled_from([0, 0, 1, 2])),
        backup=draw(st.sampled_from([None, 3.0])),
        axis=axis,
    )
    return vocab, len(old)


def some_of(entries: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    return st.permutations(entries).flatmap(
        lambda shuffled: st.integers(1, len(shuffled)).map(lambda count: shuffled[:count])
    )


@st.composite
def files_of(draw: st.DrawFn, entries: list[bytes]) -> bytes:
    ends = draw(st.sampled_from([[b""], [b""], [b"\r"], [b"", b"\r"]]))
    # An entry that ends with \r needs one more behind it: exactly one is dropped.
    lines = [
        entry + (b"\r" if entry.endswith(b"\r") else ends[at % len(ends)])
        for at, entry in enumerate(entries)
    ]
    return b"\n".join(lines) + draw(st.sampled_from([b"\n", b"\n", b""]))


# -- drawing: patterns -----------------------------------------------------------------------------

_LITERALS = (*SEGMENTS, "/", "w1/", "a/b", "v")
_ATOMS = (".", "[ab]", "[^/]", "[^w]", "[^0-9]", r"\w", r"\d", r"\W", r"\.", "(a|w1)", "(?:b|ab)/")
_QUANTIFIERS = ("", "", "", "*", "+", "?", "{2}")
_BEGINNINGS = (
    "",
    "",
    "",
    "^",
    r"\A",
    "(?!a)",
    "(?!.*b)",
    "(?=.*w)",
    "(?!.*w$)",
    "(?i)",
    ".*",
    ".*",
)
_ENDS = ("", "", "", "$", ":0", ":0$", "[^/]", "/", r"\b", r"\Z", ".*", ".*$", "(?<=b)")
_WHOLE = ("^((?!b).)*$", "^((?!/w).)*$", ".*[^1]$", "(", "a{", "^(?!.*(w|b/))")


@st.composite
def patterns(draw: st.DrawFn, names: list[str]) -> str:
    """A pattern that mostly takes something."""
    pattern = draw(any_patterns(names))
    if sometimes(draw, 8) or _takes_any(pattern, names):
        return pattern
    return f"{pattern}|{draw(st.sampled_from(names))}"


def _takes_any(pattern: str, names: list[str]) -> bool:
    try:
        return any(re.match(pattern, f"{name}:0") for name in names)
    except re.error:
        return False


@st.composite
def any_patterns(draw: st.DrawFn, names: list[str]) -> str:
    kind = draw(st.integers(0, 9))
    if kind < 4:
        return draw(st.sampled_from(names)) + draw(st.sampled_from(_ENDS))
    if kind == 4:
        return draw(st.sampled_from(_WHOLE))
    if kind == 5:
        return "|".join(draw(st.lists(st.sampled_from(names), min_size=2, max_size=2)))
    piece = st.tuples(
        st.sampled_from(_LITERALS) | st.sampled_from(_ATOMS), st.sampled_from(_QUANTIFIERS)
    ).map("".join)
    middle = "".join(draw(st.lists(piece, max_size=2)))
    return draw(st.sampled_from(_BEGINNINGS)) + middle + draw(st.sampled_from(_ENDS))


@st.composite
def selections(draw: st.DrawFn, names: list[str]) -> Selection:
    kind = draw(st.integers(0, 99))
    if kind < 12:  # and about a quarter of all: hypothesis often draws the simplest
        return ".*"
    if kind < 26:
        return [".*"]
    if kind < 40:
        return None
    if kind < 55:
        repeated = sometimes(draw, 10)
        chosen = st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=not repeated)
        return Objects(tuple(draw(chosen)))
    if kind < 98:
        count = draw(st.sampled_from([0, 1, 1, 2, 3]))
        texts = [draw(patterns(names)) for _ in range(count or 1)]
        return texts if count else texts[0]
    return draw(st.sampled_from(["", [], Objects(())]))


# -- drawing: keys, and all of it together ---------------------------------------------------------


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    names = draw(st.lists(variable_names, min_size=1, max_size=6, unique=True))
    pairs = [
        draw(remapped_pairs(name) if sometimes(draw, 70) else plain_pairs(name)) for name in names
    ]
    pairs = draw(with_other_keys(pairs))
    stored = {pair.stored.key: pair.stored for pair in pairs}
    for key in draw(st.lists(st.sampled_from(["global_step", "a/old", "z"]), max_size=2)):
        stored.setdefault(key, Stored(key, (), "int64", seed=1))
    scenario = Scenario(
        stored=tuple(stored.values()),
        variables=tuple(pair.variable for pair in pairs),
        selection=draw(selections(names)),
        vocabs={pair.variable.name: pair.vocab for pair in pairs if pair.vocab is not None},
        renames={
            pair.variable.name: pair.stored.key
            for pair in pairs
            if pair.stored.key != pair.variable.name
        },
        by_directory=draw(st.booleans()),
    )
    if not sometimes(draw, 5):
        scenario = without_unused_entries(scenario)
    if sometimes(draw, 50):
        for disturb in draw(st.lists(st.sampled_from(DISTURBANCES), min_size=1, max_size=2)):
            scenario = disturb(draw, scenario)
    return scenario


@st.composite
def with_other_keys(draw: st.DrawFn, pairs: list[Pair]) -> list[Pair]:
    """The same pairs, some of them under other names, swapped names or one name."""
    how = draw(st.sampled_from(["same", "same", "renamed", "swapped", "shared"]))
    if how == "renamed":
        chosen = draw(st.sets(st.integers(0, len(pairs) - 1), min_size=1))
        return [
            replace(pair, stored=replace(pair.stored, key=f"old/{pair.stored.key}"))
            if at in chosen
            else pair
            for at, pair in enumerate(pairs)
        ]
    if how == "swapped":
        keys = draw(st.permutations([pair.stored.key for pair in pairs]))
        return [
            replace(pair, stored=replace(pair.stored, key=key))
            for pair, key in zip(pairs, keys, strict=True)
        ]
    if how == "shared":
        one, other = (draw(st.integers(0, len(pairs) - 1)) for _ in range(2))
        shared = pairs[one].variable
        twin = replace(
            pairs[other].variable, shape=shared.shape, dtype=shared.dtype, cut=shared.cut
        )
        pairs = list(pairs)
        pairs[other] = Pair(twin, pairs[one].stored, pairs[one].vocab)
    return pairs


def without_unused_entries(scenario: Scenario) -> Scenario:
    """Drops what TensorFlow would refuse because the selection does not use it."""
    used = tf_selected(scenario) or set()
    return replace(
        scenario,
        vocabs={name: vocab for name, vocab in scenario.vocabs.items() if name in used},
        renames={name: key for name, key in scenario.renames.items() if name in used},
    )


def tf_items(variable: Variable) -> list[str]:
    """What TensorFlow matches patterns against."""
    if variable.cut is None:
        return [f"{variable.name}:0"]
    count = part_count(variable.shape, variable.cut)
    return [f"{variable.name}/part_{number}:0" for number in range(count)]


def tf_selected(scenario: Scenario) -> set[str] | None:
    """The variables of which TensorFlow selects at least a part; None for a bad pattern."""
    selection = scenario.selection
    if isinstance(selection, Objects):
        return set(selection.names)
    texts = selection if isinstance(selection, list) else [selection or ".*"]
    candidates = [v for v in scenario.variables if isinstance(selection, list) or v.trainable]
    try:
        return {
            v.name for v in candidates for t in texts if any(re.match(t, i) for i in tf_items(v))
        }
    except re.error:
        return None


# -- drawing: something that is wrong, or that the two sides may see differently -------------------

Disturbance = Callable[[st.DrawFn, Scenario], Scenario]


def _with_stored(scenario: Scenario, at: int, *stored: Stored) -> Scenario:
    others = list(scenario.stored)
    others[at : at + 1] = stored
    unique = {s.key: s for s in others}
    return replace(scenario, stored=tuple(unique.values()))


def _with_variable(scenario: Scenario, at: int, variable: Variable) -> Scenario:
    variables = list(scenario.variables)
    variables[at] = variable
    return replace(scenario, variables=tuple(variables))


def _stored_at(draw: st.DrawFn, scenario: Scenario) -> tuple[int, Stored]:
    at = draw(st.integers(0, len(scenario.stored) - 1))
    return at, scenario.stored[at]


def _other_shape(draw: st.DrawFn, shape: Shape) -> Shape:
    if not shape or sometimes(draw, 15):
        return (*shape, 1)
    axis = draw(st.integers(0, len(shape) - 1))
    size = max(1, shape[axis] + draw(st.sampled_from([-1, 1])))
    return (*shape[:axis], size, *shape[axis + 1 :])


def missing_tensor(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at, _ = _stored_at(draw, scenario)
    return _with_stored(scenario, at) if len(scenario.stored) > 1 else scenario


def other_stored_shape(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at, stored = _stored_at(draw, scenario)
    shape = _other_shape(draw, stored.shape)
    return _with_stored(scenario, at, replace(stored, shape=shape, cut=None))


def other_variable_shape(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at = draw(st.integers(0, len(scenario.variables) - 1))
    variable = scenario.variables[at]
    shape = _other_shape(draw, variable.shape)
    cut = variable.cut if len(shape) == len(variable.shape) else None
    return _with_variable(scenario, at, replace(variable, shape=shape, cut=cut))


def other_stored_dtype(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at, stored = _stored_at(draw, scenario)
    return _with_stored(scenario, at, replace(stored, dtype=draw(st.sampled_from(DTYPES))))


def other_dtype_on_both_sides(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at = draw(st.integers(0, len(scenario.variables) - 1))
    variable, dtype = scenario.variables[at], draw(st.sampled_from(DTYPES))
    scenario = _with_variable(scenario, at, replace(variable, dtype=dtype))
    source = scenario.source(variable.name)
    if source is None:
        return scenario
    return _with_stored(scenario, scenario.stored.index(source), replace(source, dtype=dtype))


def other_rank_on_both_sides(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """A vocabulary of a vector, or of a tensor with three axes."""
    name = draw(st.sampled_from(sorted(scenario.vocabs) or [scenario.variables[0].name]))
    source = scenario.source(name)
    if source is None or name not in {v.name for v in scenario.variables}:
        return scenario
    variable = scenario.variable(name)
    wanted = draw(st.sampled_from([1, 3, 4]))
    at = scenario.variables.index(variable)
    scenario = _with_variable(
        scenario, at, replace(variable, shape=_of_rank(variable.shape, wanted), cut=None)
    )
    moved = replace(source, shape=_of_rank(source.shape, wanted), cut=None)
    scenario = _with_stored(scenario, scenario.stored.index(source), moved)
    return _moved_axis(draw, scenario, name, wanted)


def _of_rank(shape: Shape, rank: int) -> Shape:
    return shape[:1] if rank == 1 else (*shape, 2, 1, 3)[:rank]


def _moved_axis(draw: st.DrawFn, scenario: Scenario, name: str, rank: int) -> Scenario:
    if name not in scenario.vocabs or not sometimes(draw, 50):
        return scenario
    vocab = replace(scenario.vocabs[name], axis=draw(st.integers(-rank, rank - 1)))
    return replace(scenario, vocabs={**scenario.vocabs, name: vocab})


def key_in_another_spelling(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    at, stored = _stored_at(draw, scenario)
    other = replace(stored, key=draw(spellings(stored.key)), seed=stored.seed + 1)
    if any(s.key == other.key for s in scenario.stored):
        return scenario
    return _with_stored(scenario, at, *([stored, other] if sometimes(draw, 40) else [other]))


def entry_in_another_spelling(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    changed = {}
    for setting in ("vocabs", "renames"):
        entries = dict(getattr(scenario, setting))
        if entries:
            name = draw(st.sampled_from(sorted(entries)))
            entries[draw(spellings(name))] = entries.pop(name)
        changed[setting] = entries
    return replace(scenario, **changed)


def rename_in_another_spelling(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    return replace(
        scenario, renames={name: draw(spellings(key)) for name, key in scenario.renames.items()}
    )


def spellings(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{name}:0", name.replace("/", "."), name])


def unused_entry(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    name = draw(st.sampled_from(["zz", "a", "w1/part_0", *(v.name for v in scenario.variables)]))
    if sometimes(draw, 50):
        return replace(scenario, renames={name: name, **scenario.renames})
    return replace(scenario, vocabs={name: Vocab(b"x\n", 1, b"x\n"), **scenario.vocabs})


def no_source_name(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    name = draw(st.sampled_from([v.name for v in scenario.variables]))
    return replace(
        scenario, renames={**scenario.renames, name: draw(st.sampled_from(["", "zz", name]))}
    )


def other_vocab(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    if not scenario.vocabs:
        return scenario
    name = draw(st.sampled_from(sorted(scenario.vocabs)))
    vocab = scenario.vocabs[name]
    changed = draw(st.sampled_from(_VOCAB_CHANGES))(draw, vocab)
    return replace(scenario, vocabs={**scenario.vocabs, name: changed})


def _other_lines(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at = draw(st.integers(0, len(lines) - 1))
    line = draw(st.sampled_from([b"", b"\r", lines[0], lines[-1], b"x"]))
    if sometimes(draw, 50):
        return b"\n".join([*lines[:at], line, *lines[at:]])
    return b"\n".join([*lines[:at], line, *lines[at + 1 :]])


def _lines_behind(draw: st.DrawFn, vocab: Vocab) -> Vocab:
    """Lines that the sizes leave unused, good or bad."""
    which = draw(st.sampled_from(["new", "old"]))
    data = getattr(vocab, which).removesuffix(b"\n") + b"\n"
    changed = replace(vocab, **{which: data + draw(st.sampled_from([b"\n", b"\r\n", b"x", data]))})
    if which == "new" or vocab.axis != 0 or vocab.old_size != -1:
        return changed
    return replace(changed, old_size=data.count(b"\n"))


_VOCAB_CHANGES: tuple[Callable[[st.DrawFn, Vocab], Vocab], ...] = (
    _lines_behind,
    _lines_behind,
    lambda draw, vocab: replace(vocab, new=_other_lines(draw, vocab.new)),
    lambda draw, vocab: replace(vocab, new=_other_lines(draw, vocab.new)),
    lambda draw, vocab: replace(vocab, old=_other_lines(draw, vocab.old)),
    lambda draw, vocab: replace(vocab, new_size=vocab.new_size + draw(st.sampled_from([-1, 1]))),
    lambda draw, vocab: replace(vocab, new_size=-1),
    lambda draw, vocab: replace(vocab, old_size=draw(st.integers(-2, 9))),
    lambda draw, vocab: replace(vocab, oov=draw(st.integers(-1, 2))),
    lambda draw, vocab: replace(vocab, axis=draw(st.sampled_from([-2, -1, 0, 1, 2]))),
)


def repeated_entry(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """An entry twice in the new vocabulary, and perhaps in two parts of the variable."""
    names = sorted({v.name for v in scenario.variables} & {*scenario.vocabs})
    if not names:
        return scenario
    name = draw(st.sampled_from(names))
    variable, vocab = scenario.variable(name), scenario.vocabs[name]
    lines = vocab.new.split(b"\n")
    lines[max(0, vocab.new_size - 1)] = lines[0]
    changed = replace(vocab, new=b"\n".join(lines))
    scenario = replace(scenario, vocabs={**scenario.vocabs, name: changed})
    at = scenario.variables.index(variable)
    return _with_variable(
        scenario, at, replace(variable, cut=draw(st.sampled_from([(0, 2), None])))
    )


DISTURBANCES: tuple[Disturbance, ...] = (
    other_vocab,
    other_vocab,
    other_vocab,
    other_vocab,
    missing_tensor,
    other_stored_shape,
    other_variable_shape,
    other_stored_dtype,
    other_dtype_on_both_sides,
    other_rank_on_both_sides,
    key_in_another_spelling,
    entry_in_another_spelling,
    rename_in_another_spelling,
    unused_entry,
    no_source_name,
    repeated_entry,
)
