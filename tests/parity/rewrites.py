"""What a scenario means to us: as another one, which TensorFlow takes as we take the first.

These are the functions of `deviations`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import oracle
import torch
from differential import (
    Objects,
    Scenario,
    Stored,
    Variable,
    Vocab,
    part_count,
    to_numpy,
    to_torch,
    torch_names,
)
from drawn_scenarios import tf_items

from torch_warmstart.vocabularies.loading import read_entries as read_vocabulary
from torch_warmstart.vocabularies.loading.content import HEAD, what_else_it_is
from torch_warmstart.vocabularies.readings import other_reading

# -- selection -------------------------------------------------------------------------------------


def _patterns(scenario: Scenario) -> list[str] | None:
    """The patterns of a selection; None if it is made in another way, or one cannot be compiled."""
    selection = scenario.selection
    if selection is None or isinstance(selection, Objects) or not selection:
        return None
    patterns = selection if isinstance(selection, list) else [selection]
    try:
        return [re.compile(pattern).pattern for pattern in patterns]
    except re.error:
        return None


def _candidates(scenario: Scenario) -> list[Variable]:
    trainable_only = isinstance(scenario.selection, str)
    return [v for v in scenario.variables if v.trainable or not trainable_only]


def _match_as_documented(pattern: str, name: str) -> bool:
    suffix = ":0" if ":0" in pattern else "\n"
    return re.compile(pattern, re.DOTALL).match(name + suffix) is not None


def _match_by_torch_name(pattern: str, torch_name: str) -> bool:
    """The whole rule: one that spells a slash, and no `\\.`, is about the name with slashes."""
    if "/" in pattern and "\\." not in pattern:
        torch_name = torch_name.replace(".", "/")
    return _match_as_documented(pattern, torch_name)


def chosen_variables(scenario: Scenario) -> list[Variable]:
    """The variables that we select."""
    if scenario.selection is None:
        return [v for v in scenario.variables if v.name in scenario.vocabs]
    if isinstance(scenario.selection, Objects):
        return [v for v in scenario.variables if v.name in scenario.selection.names]
    patterns, names = _patterns(scenario) or [], torch_names(scenario.variables)
    return [
        v
        for v in _candidates(scenario)
        if any(_match_by_torch_name(pattern, names[v.name]) for pattern in patterns)
    ]


def _exactly(scenario: Scenario, variables: Iterable[Variable]) -> Scenario:
    return replace(scenario, selection=Objects(tuple(v.name for v in variables)))


def selects_nothing(scenario: Scenario) -> bool:
    if scenario.selection is None:
        return not scenario.vocabs
    if scenario.selection and not _candidates(scenario):
        return True  # whatever the pattern is: TensorFlow does not look at it then
    names = torch_names(scenario.variables)
    return any(
        not any(_match_by_torch_name(p, names[v.name]) for v in _candidates(scenario))
        for p in _patterns(scenario) or ()
    )


def whole_variables(scenario: Scenario) -> Scenario:
    patterns = _patterns(scenario)
    if patterns is None:
        return scenario

    def is_seen_through(variable: Variable) -> bool:
        whole = replace(variable, cut=None)
        return any(
            {_tf_match(p, item) for item in tf_items(variable)}
            != {_tf_match(p, item) for item in tf_items(whole)}
            for p in patterns
        )

    return with_variables(scenario, lambda v: replace(v, cut=None) if is_seen_through(v) else v)


def _tf_match(pattern: str, item: str) -> bool:
    return re.match(pattern, item) is not None


def by_dotted_names(scenario: Scenario) -> Scenario:
    patterns, names = _patterns(scenario), torch_names(scenario.variables)
    if patterns is None or all(
        _match_by_torch_name(p, names[v.name]) == _match_as_documented(p, v.name)
        for p in patterns
        for v in _candidates(scenario)
    ):
        return scenario
    return _exactly(scenario, chosen_variables(scenario))


def by_names_without_output_number(scenario: Scenario) -> Scenario:
    patterns = _patterns(scenario)
    if patterns is None or all(
        _match_as_documented(p, v.name) == _tf_match(p, f"{v.name}:0")
        for p in patterns
        for v in _candidates(scenario)
    ):
        return scenario
    return _exactly(scenario, chosen_variables(scenario))


def each_once(scenario: Scenario) -> Scenario:
    if isinstance(scenario.selection, Objects):
        names = scenario.selection.names
        return replace(scenario, selection=Objects(tuple(dict.fromkeys(names))))
    patterns = _patterns(scenario) or []
    hits = Counter(
        v.name for v in _candidates(scenario) for p in patterns if _tf_match(p, f"{v.name}:0")
    )
    return (
        scenario
        if max(hits.values(), default=0) < 2
        else _exactly(scenario, chosen_variables(scenario))
    )


def none_takes_buffers(scenario: Scenario) -> Scenario:
    buffers = {v.name for v in scenario.variables if not v.trainable}
    has_buffers = bool(buffers & {*scenario.vocabs, *scenario.renames})
    return _none_spelled_out(scenario) if has_buffers else scenario


def _none_spelled_out(scenario: Scenario) -> Scenario:
    """None as a list of the variables with a VocabInfo; other renames are used, for nothing."""
    if scenario.selection is not None:
        return scenario
    in_model = {v.name for v in scenario.variables}
    used = {
        name: key
        for name, key in scenario.renames.items()
        if name in scenario.vocabs or name not in in_model
    }
    return replace(_exactly(scenario, chosen_variables(scenario)), renames=used)


# -- names -----------------------------------------------------------------------------------------


def canonical_entries(scenario: Scenario) -> Scenario:
    """`a.b` and `a/b:0` as `a/b` in the names of variables."""
    names = {_plain_name(name): v.name for name, v in _by_torch_name(scenario).items()}
    changed = {}
    for setting in ("vocabs", "renames"):
        entries = getattr(scenario, setting)
        better = {names.get(_plain_name(name), name): entry for name, entry in entries.items()}
        changed[setting] = better if len(better) == len(entries) else entries
    return replace(scenario, **changed)


def spread_over_modules(scenario: Scenario) -> Scenario:
    """A VocabInfo for a module, as one for each of its own variables that are selected."""
    variables = _by_torch_name(scenario)
    known = {_plain_name(name) for name in variables}
    chosen = chosen_variables(scenario) if scenario.selection is not None else scenario.variables
    vocabs = dict(scenario.vocabs)
    for name in [name for name in vocabs if _plain_name(name) not in known]:
        fitting = [
            variable
            for torch_name, variable in variables.items()
            if torch_name.rpartition(".")[0] == _plain_name(name)
            and 0 <= vocabs[name].axis < len(variable.shape)
            and variable.name not in scenario.vocabs
        ]
        if fitting:
            vocab = vocabs.pop(name)
            selected = [variable for variable in fitting if variable in chosen]
            vocabs.update({variable.name: vocab for variable in selected or fitting})
    return replace(scenario, vocabs=vocabs)


def _by_torch_name(scenario: Scenario) -> dict[str, Variable]:
    names = torch_names(scenario.variables)
    return {names[v.name]: v for v in scenario.variables}


def _plain_name(name: str) -> str:
    return name.removesuffix(":0").replace("/", ".")


def renames_to_keys(scenario: Scenario) -> Scenario:
    """A key that the user spelt with `:0` or dots, as the checkpoint spells it."""
    names = torch_names(scenario.variables)
    return replace(
        scenario,
        renames={
            name: _key_meant(scenario, names.get(name, ""), key)
            for name, key in scenario.renames.items()
        },
    )


def _key_meant(scenario: Scenario, torch_name: str, key: str) -> str:
    bare = key.removesuffix(":0")
    spellings = [key, bare, key.replace(".", "/"), key.replace("/", ".")]
    spellings += [bare.replace(".", "/"), bare.replace("/", ".")]
    leaf = torch_name.replace("/", ".").rpartition(".")[2]
    if key == leaf or key.endswith((f"/{leaf}", f".{leaf}")):  # the same leaf elsewhere
        spellings.append(f"{key}:0")
    return next((s for s in spellings if scenario.tensor(s) is not None), key)


def _spelt_keys(scenario: Scenario, variable: Variable) -> list[str]:
    """The keys of the checkpoint that we find by ourselves."""
    torch_name = torch_names(scenario.variables)[variable.name]
    half_dotted = "/".join(torch_name.rsplit(".", 1))
    dotted = torch_name.replace("/", ".")  # of a name that is no path of modules
    names = [torch_name, half_dotted, dotted, variable.name]
    wanted = dict.fromkeys([*names, *(f"{name}:0" for name in names)])
    return [key for key in wanted if scenario.tensor(key) is not None]


def found_in_another_spelling(scenario: Scenario) -> Scenario:
    found = {
        v.name: keys[0]
        for v in chosen_variables(scenario)
        if v.name not in scenario.renames
        and len(keys := _spelt_keys(scenario, v)) == 1
        and keys != [v.name]
    }
    return replace(scenario, renames={**scenario.renames, **found})


def found_in_a_scope(scenario: Scenario) -> Scenario:
    """The only tensor that is called like a variable of a layer, but for one scope in front."""
    others = {key for v in scenario.variables for key in _spelt_keys(scenario, v)}
    found = {name: key for name, key in _in_a_scope(scenario).items() if key not in others}
    return replace(scenario, renames={**scenario.renames, **found})


def _in_a_scope(scenario: Scenario) -> dict[str, str]:
    names, found = torch_names(scenario.variables), {}
    for variable in chosen_variables(scenario):
        lost = variable.name not in scenario.renames and not _spelt_keys(scenario, variable)
        if lost and "." in names[variable.name]:
            keys = [s.key for s in scenario.stored if _without_scope(s.key) == variable.name]
            found.update({variable.name: keys[0]} if len(keys) == 1 else {})
    return found


def _without_scope(key: str) -> str:
    return key.removesuffix(":0").partition("/")[2]


def is_found_twice(scenario: Scenario) -> bool:
    return any(
        v.name not in scenario.renames and len(_spelt_keys(scenario, v)) > 1
        for v in chosen_variables(scenario)
    )


# -- vocabularies ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remapped:
    """A variable that is selected and has a vocabulary and a tensor."""

    variable: Variable
    stored: Stored
    vocab: Vocab

    @property
    def is_what_tensorflow_remaps(self) -> bool:
        ranks = {len(self.variable.shape), len(self.stored.shape)}
        return ranks == {2} and {self.variable.dtype, self.stored.dtype} == {"float32"}

    @property
    def new(self) -> list[bytes]:
        return oracle.lines(self.vocab.new)[: self.vocab.new_size]

    @property
    def old(self) -> list[bytes]:
        lines = oracle.lines(self.vocab.old)
        return lines if self.vocab.old_size == -1 else lines[: self.vocab.old_size]

    @property
    def rows(self) -> list[int]:
        return oracle.remap(self.new, self.old) + [-1] * self.vocab.oov


def _remapped(scenario: Scenario) -> list[Remapped]:
    found = []
    for variable in chosen_variables(scenario):
        stored, vocab = scenario.source(variable.name), scenario.vocabs.get(variable.name)
        if stored is not None and vocab is not None:
            found.append(Remapped(variable, stored, vocab))
    return found


def with_variables(scenario: Scenario, change: Callable[[Variable], Variable]) -> Scenario:
    return replace(scenario, variables=tuple(change(v) for v in scenario.variables))


def with_vocabs(scenario: Scenario, change: Callable[[Remapped], Vocab]) -> Scenario:
    changed = {r.variable.name: change(r) for r in _remapped(scenario)}
    return replace(scenario, vocabs={**scenario.vocabs, **changed})


def sizes_of_all_entries(scenario: Scenario) -> Scenario:
    def change(remapped: Remapped) -> Vocab:
        if remapped.vocab.new_size != -1:
            return remapped.vocab
        return replace(remapped.vocab, new_size=len(oracle.lines(remapped.vocab.new)))

    return with_vocabs(scenario, change)


def axes_from_the_start(scenario: Scenario) -> Scenario:
    def change(remapped: Remapped) -> Vocab:
        axis, rank = remapped.vocab.axis, len(remapped.variable.shape)
        return replace(remapped.vocab, axis=axis + rank if -rank <= axis < 0 else axis)

    return with_vocabs(scenario, change)


def old_sizes_of_columns(scenario: Scenario) -> Scenario:
    """For columns, too, the old vocabulary ends where old_vocab_size says."""

    def change(remapped: Remapped) -> Vocab:
        vocab, size = remapped.vocab, remapped.vocab.old_size
        if vocab.axis != 1 or size == -1:
            return vocab
        lines = vocab.old.split(b"\n")
        there = 0 < size <= len(oracle.lines(vocab.old))
        old = b"\n".join(lines[:size]) + b"\n" if there else b""
        return replace(vocab, old=old, old_size=-1)

    return with_vocabs(scenario, change)


def whole_where_entries_repeat(scenario: Scenario) -> Scenario:
    repeating = {
        r.variable.name
        for r in _remapped(scenario)
        if any(row >= 0 and r.rows.count(row) > 1 for row in r.rows)
    }
    return with_variables(scenario, lambda v: replace(v, cut=None) if v.name in repeating else v)


def whole_where_columns_are_cut(scenario: Scenario) -> Scenario:
    cut = {
        r.variable.name
        for r in _remapped(scenario)
        if r.variable.cut is not None
        and r.variable.cut[0] > 0
        and part_count(r.variable.shape, r.variable.cut) > 1
    }
    return with_variables(scenario, lambda v: replace(v, cut=None) if v.name in cut else v)


def is_of_another_form(scenario: Scenario) -> bool:
    """Whether a vocabulary file is something else than text with an entry a line."""
    files = [file for v in scenario.vocabs.values() for file in (v.new, v.old)]
    return any(what_else_it_is(file[:HEAD]) for file in files)


def agrees_only_otherwise(scenario: Scenario) -> bool:
    """Whether none of a vocabulary is found, but would be if it were read otherwise."""
    return any(map(_agrees_only_otherwise, scenario.vocabs.values()))


def _agrees_only_otherwise(vocab: Vocab) -> bool:
    new, old = _entries(vocab.new, vocab.new_size), _entries(vocab.old, vocab.old_size)
    if not new or not old or set(new) & set(old):
        return False
    none = torch.full((len(new),), -1)
    return other_reading(read_vocabulary(new), read_vocabulary(old), none) != ""


def _entries(file: bytes, size: int) -> list[bytes]:
    entries = oracle.lines(file)
    return entries if size == -1 else entries[:size]


def has_too_few_rows(scenario: Scenario) -> bool:
    return any(
        r.is_what_tensorflow_remaps
        and r.vocab.axis == 0
        and r.variable.shape[0] < r.vocab.new_size + r.vocab.oov
        for r in _remapped(scenario)
    )


def leaves_old_rows_behind(scenario: Scenario) -> bool:
    return any(
        r.is_what_tensorflow_remaps
        and r.vocab.axis == 1
        and r.variable.shape[0] < r.stored.shape[0]
        for r in _remapped(scenario)
    )


def points_past_the_columns(scenario: Scenario) -> bool:
    return any(
        r.is_what_tensorflow_remaps
        and r.vocab.axis == 1
        and max(r.rows, default=-1) >= r.stored.shape[1]
        for r in _remapped(scenario)
    )


def remapped_by_loops(scenario: Scenario) -> Scenario:
    """Ranks, axes and dtypes that TensorFlow cannot remap, remapped row by row beforehand."""
    for r in _remapped(scenario):
        two_axes = r.vocab.axis in (0, 1)
        if not (r.is_what_tensorflow_remaps and two_axes) and _is_remappable(r):
            target = torch.full(r.variable.shape, r.vocab.backup or 0.0).to(_dtype(r.variable))
            source = to_torch(r.stored.values).to(target.dtype)
            values = oracle.gather(source, r.rows, target, r.vocab.axis)
            scenario = _with_values(scenario, r.variable, values)
    return scenario


def _is_remappable(remapped: Remapped) -> bool:
    """Whether a vocabulary fits, by our rules."""
    variable, stored, vocab = remapped.variable, remapped.stored, remapped.vocab
    rank, axis = len(variable.shape), vocab.axis
    if not 0 <= axis < rank or len(stored.shape) != rank or not _is_cast(variable, stored):
        return False
    others = [shape[:axis] + shape[axis + 1 :] for shape in (variable.shape, stored.shape)]
    rows, old = remapped.rows, remapped.old
    present = [row for row in rows if row >= 0]
    return (
        others[0] == others[1]
        and vocab.oov >= 0
        and len(remapped.new) == vocab.new_size
        and vocab.old_size in (-1, len(old))
        and b"" not in oracle.lines(vocab.new)
        and b"" not in old
        and len(set(old)) == len(old) > 0
        and len(set(present)) == len(present)
        and variable.shape[axis] == len(rows)
        and max(rows, default=-1) < stored.shape[axis]
    )


# -- dtypes ----------------------------------------------------------------------------------------


def _dtype(item: Variable | Stored) -> torch.dtype:
    return getattr(torch, item.dtype)


def _is_cast(variable: Variable, stored: Stored) -> bool:
    new, old = _dtype(variable), _dtype(stored)
    if new == old or (new.is_floating_point and old.is_floating_point):
        return True
    wider = {"uint8": ("int32", "int64"), "int32": ("int64",)}
    return variable.dtype in wider.get(stored.dtype, ())


def cast_beforehand(scenario: Scenario) -> Scenario:
    for variable in chosen_variables(scenario):
        stored = scenario.source(variable.name)
        if stored is None or variable.name in scenario.vocabs or variable.shape != stored.shape:
            continue
        if variable.dtype != stored.dtype and _is_cast(variable, stored):
            values = to_torch(stored.values).to(_dtype(variable))
            scenario = _with_values(scenario, variable, values)
    return scenario


def whole_where_slices_of_half_differ(scenario: Scenario) -> Scenario:
    def is_joined(variable: Variable) -> bool:
        stored = scenario.source(variable.name)
        half = stored is not None and variable.dtype == stored.dtype == "float16"
        return half and _slices(variable) != _slices(stored)

    if not any(is_joined(variable) for variable in chosen_variables(scenario)):
        return scenario
    whole = with_variables(scenario, lambda v: replace(v, cut=None) if v.dtype == "float16" else v)
    stored = [replace(s, cut=None) if s.dtype == "float16" else s for s in scenario.stored]
    return replace(whole, stored=tuple(stored))


def _slices(item: Variable | Stored) -> tuple[int, int] | None:
    """An axis and a number of parts; None for one part."""
    parts = part_count(item.shape, item.cut)
    return None if item.cut is None or parts == 1 else (item.cut[0], parts)


def _with_values(scenario: Scenario, variable: Variable, values: torch.Tensor) -> Scenario:
    """The variable takes these values from a tensor of its own, as they are."""
    scenario = _none_spelled_out(scenario)
    stored = Stored(
        f"understood/{variable.name}",
        tuple(values.shape),
        variable.dtype,
        raw=to_numpy(values).tobytes(),
    )
    return replace(
        scenario,
        stored=(*scenario.stored, stored),
        vocabs={name: v for name, v in scenario.vocabs.items() if name != variable.name},
        renames={**scenario.renames, variable.name: stored.key},
    )
