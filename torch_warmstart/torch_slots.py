"""Slots in the state that a torch optimizer saved: by the parameter's name, or by its position.

torch numbers the parameters in a saved state and, unless the optimizer was made from named ones,
says no more. Then position i is taken for the i-th parameter of the checkpoint's model, or where
that cannot be, for the one that the groups of the current optimizer call for; but only if the
counts agree, and every slot has the shape of its parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from torch_warmstart.errors import SettingsError, did_you_mean, plural
from torch_warmstart.formats.base import TensorSpec
from torch_warmstart.formats.saved_optimizers import SavedOptimizer, SavedParameter
from torch_warmstart.layouts import Form
from torch_warmstart.names import Finder, Source
from torch_warmstart.renames import BY_USER
from torch_warmstart.slot_source import SlotSource, SourceOf, slot_form, slot_keys
from torch_warmstart.variables import WRAPPER_CHILDREN, Shape, Variable

_BUFFERS = {"running_mean", "running_var", "num_batches_tracked"}
_NO_STATE = "the checkpoint's optimizer had none for it"
_STEP = "step"
_SHOWN = 3  # names listed in a message


@dataclass(frozen=True, slots=True)
class _Hit:
    """What one of the saved optimizers has for a parameter."""

    optimizer: SavedOptimizer
    parameter: SavedParameter


class TorchSlots:
    """The slots in a checkpoint that torch wrote."""

    def __init__(
        self,
        finder: Finder,
        variables: Sequence[Variable],
        source_of: SourceOf,
        optimizer_entry: str | None = None,
    ) -> None:
        """Looks at nothing yet.

        Args:
            finder: Of the checkpoint.
            variables: All there are.
            source_of: Where a variable is found.
            optimizer_entry: Which optimizers of the checkpoint are meant, as a path of keys.
        """
        self._checkpoint = finder.checkpoint
        self._variables = variables
        self._source_of = source_of
        self._entry = optimizer_entry
        self._known: dict[str, Mapping[str, SavedParameter] | SettingsError] = {}  # by path

    def find(self, slot: Variable, parameter: Source) -> SlotSource | str | None:
        """Where a slot comes from; why there can be nothing for it; or None if it is missing.

        Raises SettingsError if optimizers' states cannot be told apart, or positions not checked.
        """
        assert slot.slot is not None
        hits = self._hits(slot.slot.parameter, parameter.specs[0])
        having = [hit for hit in hits if slot.slot.name in hit.parameter.slots]
        if len(having) > 1:
            raise self._ambiguous(slot, having)
        if having:
            return self._source(slot, parameter, having[0])
        frozen = hits and not any(hit.parameter.slots for hit in hits)
        return _NO_STATE if frozen else None

    def explain(self, slot: Variable, parameter: Source) -> str:
        """Why `find` found nothing. The same words for all slots that share the reason."""
        assert slot.slot is not None
        where, key = self._checkpoint.url, parameter.specs[0].key
        if not self._optimizers:
            return f"{where} holds no optimizer's state, so there are no slots to take."
        hits = self._hits(slot.slot.parameter, parameter.specs[0])
        if not hits:
            names = [p.name for o in self._optimizers for p in o.parameters if p.name]
            return (
                f"{slot.name}: the optimizer's state in {where} has no parameter {key!r}."
                f"{did_you_mean(key, names)}"
            )
        there = hits[0].optimizer.slot_names
        wanted = self._slots_of[id(slot.slot.parameter)]
        lacking = [name for name in wanted if name not in there]
        if not lacking:
            return f"{slot.name}: the optimizer's state in {where} has none for {key!r}."
        why = "another optimizer, or one with other options, made it"
        if lacking == ["max_exp_avg_sq"]:
            why = "it was trained without amsgrad"
        kept, others = _listed(there, "and"), _listed(lacking, "or")
        return (
            f"The optimizer's state in {where} has {kept}, but no {others}, as "
            f"{type(slot.slot.optimizer).__name__} keeps here: {why}."
        )

    def renamed(self, slot: Variable, parameter: Source, specs: Sequence[TensorSpec]) -> SlotSource:
        """A slot from the tensors that the user named."""
        form = slot_form(parameter.form)
        return SlotSource(Source(tuple(specs), slot.owners[0], form), BY_USER)

    @functools.cached_property
    def _slots_of(self) -> Mapping[int, Sequence[str]]:
        """What the current optimizers keep, by id of the parameter."""
        found: dict[int, list[str]] = {}
        for slot in (v.slot for v in self._variables if v.slot is not None):
            found.setdefault(id(slot.parameter), []).append(slot.name)
        return found

    # -- what the checkpoint has -------------------------------------------------------------------

    @functools.cached_property
    def _optimizers(self) -> tuple[SavedOptimizer, ...]:
        """Those that are meant."""
        found, entry = self._checkpoint.optimizer_states(), self._entry
        if entry is None:
            return found
        chosen = tuple(o for o in found if f"{o.path}/".startswith(f"{entry.strip('/')}/"))
        if not chosen:
            there = ", ".join(repr(optimizer.path) for optimizer in found) or "none"
            raise SettingsError(
                f"optimizer_entry={entry!r}: {self._checkpoint.url} has no optimizer's state there;"
                f" there are {there}."
            )
        return chosen

    def _hits(self, variable: Variable, spec: TensorSpec) -> list[_Hit]:
        """What saved optimizers have for the parameter that a tensor is the value of."""
        hits, problems = [], []
        for optimizer in self._optimizers:
            try:
                found = self._parameter_in(optimizer, variable, spec)
            except SettingsError as error:
                problems.append(error)
                continue
            if found is not None:
                hits.append(_Hit(optimizer, found))
        if problems and not hits:
            raise problems[0]
        return hits

    def _parameter_in(
        self, optimizer: SavedOptimizer, variable: Variable, spec: TensorSpec
    ) -> SavedParameter | None:
        if optimizer.path not in self._known:
            self._known[optimizer.path] = self._identify(optimizer)
        known = self._known[optimizer.path]
        if isinstance(known, SettingsError):
            raise known
        return next((known[key] for key in self._aliases(variable, spec) if key in known), None)

    def _identify(self, optimizer: SavedOptimizer) -> Mapping[str, SavedParameter] | SettingsError:
        """A saved optimizer's parameters by name or key, or why they cannot be told."""
        if optimizer.is_named:
            return _by_name(optimizer)
        try:
            return self._by_position(optimizer)
        except SettingsError as error:
            return error

    def _aliases(self, variable: Variable, spec: TensorSpec) -> Iterator[str]:
        """What a saved optimizer may call a parameter: its key, and those of tensors tied to it."""
        keys = [spec.key]
        if spec.storage is not None:
            keys += self._keys_by_storage.get(spec.storage, ())
        yield from keys
        for key in map(_without_wrappers, keys):
            yield key
            yield from (n for n in variable.names if key == n or key.endswith(f".{n}"))
        if any(_without_wrappers(key) in variable.names for key in keys):
            yield from variable.names

    @functools.cached_property
    def _keys_by_storage(self) -> Mapping[object, Sequence[str]]:
        found: dict[object, list[str]] = {}
        for key in self._checkpoint:
            found.setdefault(self._checkpoint.spec(key).storage, []).append(key)
        return found

    def _source(self, slot: Variable, parameter: Source, hit: _Hit) -> SlotSource:
        assert slot.slot is not None
        spec = self._checkpoint.spec(hit.parameter.slots[slot.slot.name])
        is_alike = spec.shape == parameter.specs[0].shape
        form = slot_form(parameter.form) if is_alike else Form(((slot.slot.name,),))
        reason = "by name" if hit.optimizer.is_named else "by position"
        return SlotSource(Source((spec,), slot.owners[0], form), reason)

    def _ambiguous(self, slot: Variable, hits: Sequence[_Hit]) -> SettingsError:
        paths = [hit.optimizer.path for hit in hits]
        return SettingsError(
            f"{slot.name} is in several optimizers' states: {', '.join(map(repr, paths))}. Say "
            f"which one is meant: optimizer_entry={paths[0]!r}."
        )

    # -- by position -------------------------------------------------------------------------------

    def _by_position(self, optimizer: SavedOptimizer) -> Mapping[str, SavedParameter]:
        """By key; SettingsError if positions cannot be checked, or do not fit."""
        problems = []
        fitting: list[Sequence[str]] = []
        for order in self._orders(optimizer):
            problem = self._misfit(optimizer, order)
            if problem:
                problems.append(problem)
            elif order not in fitting:
                fitting.append(order)
        if len(fitting) == 1 or (fitting and fitting[0] == self._keys and not self._is_sorted):
            return dict(zip(fitting[0], optimizer.parameters, strict=True))
        raise SettingsError(self._unclear(optimizer, problems, fitting))

    def _orders(self, optimizer: SavedOptimizer) -> Iterator[list[str]]:
        """The orders that the parameters of a saved optimizer may have had, by their keys.

        First that of the checkpoint's model; then what the current optimizers have, each group in
        the order of the checkpoint's model, or in its own.
        """
        at = {key: position for position, key in enumerate(self._keys)}
        if len(optimizer.group_sizes) <= 1:
            yield self._keys
        for groups in self._current_groups:
            if any(key not in at for group in groups for key in group):
                continue
            merged = [key for group in groups for key in group]
            if len(optimizer.group_sizes) <= 1:
                yield sorted(merged, key=at.__getitem__)
            elif tuple(map(len, groups)) == optimizer.group_sizes:
                yield [key for group in groups for key in sorted(group, key=at.__getitem__)]
            else:
                continue
            yield merged

    @functools.cached_property
    def _keys(self) -> list[str]:
        """The checkpoint's parameters in the order of its model, tied ones once, no buffers."""
        buffers = {name for v in self._variables if v.kind == "buffer" for name in v.names}
        slots = set(slot_keys(self._checkpoint.optimizer_states()))
        found: dict[object, str] = {}
        for key in self._checkpoint:
            spec, name = self._checkpoint.spec(key), _without_wrappers(key)
            is_buffer = name in buffers or name.rpartition(".")[2] in _BUFFERS
            if not is_buffer and key not in slots and _takes_gradients(spec):
                found.setdefault(key if spec.storage is None else spec.storage, key)
        return list(found.values())

    @functools.cached_property
    def _is_sorted(self) -> bool:
        """Whether the order may be a file's: safetensors sorts by name, within each dtype.

        A model in torch's order has a weight before its bias, so it is seldom sorted.
        """
        by_dtype: dict[object, list[str]] = {}
        for key in self._keys:
            by_dtype.setdefault(self._checkpoint.spec(key).dtype, []).append(key)
        return all(keys == sorted(keys) for keys in by_dtype.values())

    @functools.cached_property
    def _current_groups(self) -> list[list[list[str]]]:
        """The keys of the current optimizers' parameters, by group; not of those without."""
        optimizers = {id(v.slot.optimizer): v.slot.optimizer for v in self._variables if v.slot}
        by_tensor = {id(v.tensor): v for v in self._variables if v.kind == "parameter"}
        found = []
        for optimizer in optimizers.values():
            parameters = [[by_tensor.get(id(t)) for t in g["params"]] for g in _groups(optimizer)]
            keys = [[self._key_of(p) for p in group] for group in parameters]
            if all(key is not None for group in keys for key in group):
                found.append([[key for key in group if key is not None] for group in keys])
        return found

    def _key_of(self, variable: Variable | None) -> str | None:
        source = self._source_of(variable) if variable is not None else None
        return self._first_key(source.specs[0]) if source is not None else None

    def _first_key(self, spec: TensorSpec) -> str:
        """The one among a tied tensor's keys that `_keys` has."""
        tied = self._keys_by_storage.get(spec.storage, ()) if spec.storage is not None else ()
        return next(iter(tied), spec.key)

    def _misfit(self, optimizer: SavedOptimizer, keys: Sequence[str]) -> str | None:
        """Why parameters cannot have had these keys in this order; None if they can."""
        if len(keys) != len(optimizer.parameters):
            shown = ", ".join(map(repr, keys[:_SHOWN])) + (", ..." if len(keys) > _SHOWN else "")
            return (
                f"it has {plural(len(optimizer.parameters), 'parameter')}, the model "
                f"{len(keys):,} ({shown})"
            )
        for position, (key, parameter) in enumerate(zip(keys, optimizer.parameters, strict=True)):
            shape = self._checkpoint.spec(key).shape
            slots = {n: self._checkpoint.spec(k).shape for n, k in parameter.slots.items()}
            slots.pop(_STEP, None)
            if slots and not _can_be_of(list(slots.values()), shape):
                name = next(name for name, found in slots.items() if found != shape)
                return (
                    f"number {position} would be {key!r} of shape {list(shape)}, but its {name!r} "
                    f"has shape {list(slots[name])}"
                )
        return None

    def _unclear(
        self, optimizer: SavedOptimizer, problems: Sequence[str], fitting: Sequence[Sequence[str]]
    ) -> str:
        groups = optimizer.group_sizes
        if fitting:
            why = "their shapes fit in more than one order"
        elif problems:
            why = problems[0]
        else:
            sizes = " and ".join(map(str, groups))
            why = (
                f"it has groups of {sizes} parameters, and `optimizer` no such groups to compare "
                "them with"
            )
        return (
            f"The optimizer's state at {optimizer.path!r} in {self._checkpoint.url} numbers its "
            f"parameters without naming them, and which are which is unclear: {why}. Save it from "
            "an optimizer with named parameters (torch.optim.Adam(model.named_parameters())), or "
            "name keys in var_name_to_prev_var_name, such as "
            f"{_example(optimizer)!r}, or leave the slots out of vars_to_warm_start."
        )


def _by_name(optimizer: SavedOptimizer) -> Mapping[str, SavedParameter]:
    """By name, with what wrappers add to it and without."""
    found: dict[str, SavedParameter] = {}
    for parameter in optimizer.parameters:
        found.setdefault(_without_wrappers(parameter.name or ""), parameter)
    return {**found, **{p.name: p for p in optimizer.parameters if p.name is not None}}


def _listed(names: Sequence[str], word: str) -> str:
    *first, last = map(repr, names or ("nothing",))
    return f"{', '.join(first)} {word} {last}" if first else last


def _groups(optimizer: torch.optim.Optimizer) -> list[dict[str, list[torch.Tensor]]]:
    return optimizer.param_groups


def _without_wrappers(name: str) -> str:
    parts = [part for part in name.split(".") if part not in WRAPPER_CHILDREN]
    while len(parts) > 1 and parts[0] == "module":
        parts = parts[1:]
    return ".".join(parts)


def _takes_gradients(spec: TensorSpec) -> bool:
    return spec.dtype is not None and (spec.dtype.is_floating_point or spec.dtype.is_complex)


def _can_be_of(slots: Sequence[Shape], parameter: Shape) -> bool:
    """Whether slots of these shapes can be those of a parameter.

    One has its shape; or they are factored, by rows and columns, as Adafactor's are.
    """
    alike = [slot for slot in slots if len(slot) == len(parameter)]
    if not all(size in (1, whole) for s in alike for size, whole in zip(s, parameter, strict=True)):
        return False
    if alike and tuple(map(max, zip(*alike, strict=True))) == parameter:
        return True
    rows, columns = parameter[:-1], (*parameter[:-2], *parameter[-1:])
    return rows != columns and {rows, columns} <= set(slots)


def _example(optimizer: SavedOptimizer) -> str:
    return next(iter(slot_keys([optimizer])), f"{optimizer.path}/state/0/exp_avg")
