"""Optimizers' states inside a container: where they are, and what they keep for which parameter.

torch writes them in three ways. `optimizer.state_dict()` numbers the parameters in the order of
the param groups and, where the optimizer was made from named parameters, lists their names.
torch.distributed's keep the state by name; flattened, a key is `state.<name>.<slot>`. TorchRec's
keep it by name, too, without param groups, and call a slot of `<path>.<table>.weight`
`<table>.<slot>`.

A slot's key is the path to it: `optimizer/state/0/exp_avg`. Of optimizers that count the steps of a
param group (apex's, LAMB), that is each parameter's `step`: `optimizer/param_groups/0/step`.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.values import frozen

_Tree = Mapping[Any, Any]

_DEPTH = 4  # of an optimizer's state in a container
_STATE, _GROUPS, _STEP = "state", "param_groups", "step"
# Of a flattened key: what comes before, the parameter's name, the slot's.
_FLAT_STATE = re.compile(r"(|.*?\.)state\.(.+)\.([^.]+)", re.DOTALL)
_FLAT_GROUP = re.compile(r"(|.*?\.)param_groups\.(.+)\.([^.]+)", re.DOTALL)
_OF_A_TABLE = re.compile(r"(?:.*\.)?([^.]+)\.weight", re.DOTALL)  # as TorchRec calls it
_USUAL_PREFIX = re.compile(r"(.*\.)?(optim|optimizer|optimizers)\.(\d+\.)?")


@frozen
class SavedParameter:
    """What an optimizer kept for one parameter."""

    name: str | None  # None: the state does not say
    group: int  # the number of its param group
    slots: Mapping[str, str]  # name of the slot to its key; empty: it had none yet


@frozen(slots=False)  # without slots, for the cached properties
class SavedOptimizer:
    """One optimizer's state, with its parameters in the order of its param groups."""

    path: str  # of keys in the container: "optimizer", "optimizer_states/0"
    parameters: tuple[SavedParameter, ...]
    options: frozenset[str] = frozenset()  # that its param groups name; empty: they are not kept

    @functools.cached_property
    def is_named(self) -> bool:
        """Whether it says which parameters its state belongs to."""
        return all(parameter.name is not None for parameter in self.parameters)

    @functools.cached_property
    def shared_name(self) -> str | None:
        """A name that several parameters have: those of several models in one optimizer."""
        names = Counter(parameter.name for parameter in self.parameters)
        return next((name for name, count in names.items() if name and count > 1), None)

    @property
    def tells_names(self) -> bool:
        """Whether each parameter's state can be told by its name; by its position, if not."""
        return self.is_named and self.shared_name is None

    @functools.cached_property
    def group_sizes(self) -> tuple[int, ...]:
        """How many parameters each param group has."""
        groups = [parameter.group for parameter in self.parameters]
        return tuple(groups.count(number) for number in range(max(groups, default=-1) + 1))

    @functools.cached_property
    def slot_names(self) -> tuple[str, ...]:
        """The slots it keeps, for whichever parameter."""
        return tuple(dict.fromkeys(name for p in self.parameters for name in p.slots))


def find_optimizers(
    root: Any, leaf: type = torch.Tensor, load: Callable[[Any], Any] = lambda value: value
) -> tuple[tuple[SavedOptimizer, ...], dict[str, Any]]:
    """The optimizers in a container, and what stands under each of their keys.

    Args:
        root: The container, of mappings and lists.
        leaf: The type of what counts as a tensor.
        load: Makes what a container holds of what stands for it.

    Returns:
        The optimizers; and for each key, a `leaf`, or for a plain number a tensor without
        dimensions.
    """
    values: dict[str, Any] = {}
    optimizers = []
    for path, node in _walk(root, "", set(), _DEPTH):
        found = _nested(path, node, load) if _is_nested(node) else _flat(path, node, load)
        for optimizer, there in found:
            kept = {key: tensor for key, v in there.items() if (tensor := _tensor(v, leaf, load))}
            values.update({key: tensor[0] for key, tensor in kept.items()})
            if optimizer.parameters:
                optimizers.append(_with_only(optimizer, kept))
    return tuple(optimizers), values


def in_keys(keys: Iterable[str]) -> tuple[SavedOptimizer, ...]:
    """The flattened optimizers among a checkpoint's own keys."""
    return tuple(optimizer for optimizer, _ in _flat("", dict.fromkeys(keys), lambda value: value))


def may_be_slot(key: str) -> bool:
    """Whether a key can be a slot's: cheaper than to look for optimizers."""
    return _STATE in key or _GROUPS in key


# -- where they are --------------------------------------------------------------------------------


def _walk(node: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, _Tree]]:
    """Mappings that may be an optimizer's state, with their paths; each object once."""
    if isinstance(node, torch.optim.Optimizer):
        node = node.state_dict()
    if not isinstance(node, Mapping | list | tuple) or id(node) in seen or depth < 0:
        return
    seen.add(id(node))  # a container may contain itself
    if isinstance(node, Mapping) and _is_nested(node):
        yield path, node
        return
    if isinstance(node, Mapping) and any(isinstance(k, str) and _FLAT_STATE.match(k) for k in node):
        yield path, node
    children = node.items() if isinstance(node, Mapping) else enumerate(node)
    for key, child in children:
        if isinstance(key, str | int):
            yield from _walk(child, _join(path, key), seen, depth - 1)


def _is_nested(node: _Tree) -> bool:
    return isinstance(node.get(_STATE, {}), Mapping) and (_GROUPS in node or _is_keyed(node))


def _is_keyed(node: _Tree) -> bool:
    """Whether it is the state of one of TorchRec's optimizers: by name, and nothing else."""
    state = node.get(_STATE) or {}
    return (
        len(node) == 1
        and bool(state)
        and all(
            isinstance(name, str) and "." in name and isinstance(slots, Mapping)
            for name, slots in state.items()
        )
    )


def _slot_in(name: str, slot: str) -> str:
    """A slot's name without the table's."""
    match = _OF_A_TABLE.fullmatch(name)
    return slot if match is None else slot.removeprefix(f"{match[1]}.")


def _join(path: str, *keys: object) -> str:
    return "/".join([*([path] if path else []), *(str(key) for key in keys)])


# -- what they keep --------------------------------------------------------------------------------

_Found = tuple[SavedOptimizer, dict[str, Any]]  # with what stands under its keys, to be loaded


def _nested(path: str, node: _Tree, load: Callable[[Any], Any]) -> Iterator[_Found]:
    state = {str(key): slots for key, slots in node.get(_STATE, {}).items()}
    values: dict[str, Any] = {}
    parameters = []
    groups = _groups(node.get(_GROUPS, ()), load)
    listed = list(_listed(groups, load))
    for identity, name, group in [*listed, *_unlisted(state, {i for i, _, _ in listed})]:
        slots = state.get(identity)
        keys = {}
        for slot, value in slots.items() if isinstance(slots, Mapping) else ():
            key = _join(path, _STATE, identity, slot)
            keys[_slot_in(name or "", str(slot))], values[key] = key, value
        if group < len(groups) and _STEP in groups[group]:
            key = _join(path, _GROUPS, group, _STEP)
            _add_count_of_group(keys, values, key, groups[group][_STEP])
        parameters.append(SavedParameter(name, group, keys))
    options = frozenset(option for group in groups for option in group if isinstance(option, str))
    yield SavedOptimizer(path, tuple(parameters), options), values


def _add_count_of_group(
    slots: dict[str, str], values: dict[str, Any], key: str, count: object
) -> None:
    """One count of steps for a param group, as apex has it, is that of each parameter with state.

    In place, under its key; a parameter may have one of its own.
    """
    if slots and _STEP not in slots:
        slots[_STEP], values[key] = key, count


def _groups(groups: Any, load: Callable[[Any], Any]) -> list[_Tree]:
    """The param groups in order; one that cannot be read is empty."""
    in_order = _by_number(groups) if isinstance(groups, Mapping) else load(groups)
    listed = in_order if isinstance(in_order, list | tuple) else ()
    return [group if isinstance(group, Mapping) else {} for group in listed]


_Listed = tuple[str, str | None, int]  # how the state calls a parameter, its name, its group


def _listed(groups: Sequence[_Tree], load: Callable[[Any], Any]) -> Iterator[_Listed]:
    """The parameters of the param groups."""
    for number, group in enumerate(groups):
        identities = load(group.get("params"))
        if not isinstance(identities, list | tuple):
            continue
        names = load(group.get("param_names"))
        if not isinstance(names, list | tuple) or len(names) != len(identities):
            names = [identity if isinstance(identity, str) else None for identity in identities]
        for identity, name in zip(identities, names, strict=True):
            yield str(identity), name if isinstance(name, str) else None, number


def _unlisted(state: Mapping[str, Any], listed: set[str]) -> Iterator[_Listed]:
    """What has state though no param group lists it: their lists may not be readable."""
    for identity in sorted(set(state) - listed, key=_numbers_first):
        yield identity, None if identity.isdecimal() else identity, 0


def _numbers_first(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdecimal() and len(text) < 20 else (1, 0, text)


def _by_number(groups: Mapping[Any, Any]) -> list[Any]:
    return [groups[key] for key in sorted(groups, key=lambda key: _numbers_first(str(key)))]


def _flat(path: str, node: _Tree, _: Callable[[Any], Any]) -> Iterator[_Found]:
    """The optimizers whose flattened keys a mapping has, one for each thing that comes before."""
    grouped: dict[str, dict[str, None]] = {}
    options: dict[str, set[str]] = {}
    counts: dict[tuple[str, str], str] = {}  # of steps, in the param group of a parameter
    slots: dict[str, dict[str, dict[str, str]]] = {}  # by what comes before, and parameter
    values: dict[str, Any] = {}
    for key in node:
        if isinstance(key, str) and (match := _FLAT_GROUP.fullmatch(key)):
            grouped.setdefault(match[1], {})[match[2]] = None
            options.setdefault(match[1], set()).add(match[3])
            if match[3] == _STEP:
                counts[match[1], match[2]] = key
        elif isinstance(key, str) and (match := _FLAT_STATE.fullmatch(key)):
            name = _parameter_in(match[2])
            of_parameter = slots.setdefault(match[1], {}).setdefault(name, {})
            of_parameter[match[3]] = _join(path, key)
            values[_join(path, key)] = node[key]
    for prefix, by_name in slots.items():
        if prefix not in grouped and not _USUAL_PREFIX.fullmatch(prefix):
            continue  # a module that is called `state`
        for name, kept in by_name.items():
            if (count := counts.get((prefix, name))) is not None:
                _add_count_of_group(kept, values, _join(path, count), node[count])
        names = dict.fromkeys([*grouped.get(prefix, ()), *by_name])
        parameters = tuple(SavedParameter(name, 0, by_name.get(name, {})) for name in names)
        keys = {key for parameter in parameters for key in parameter.slots.values()}
        where = _join(path, prefix.rstrip(".")) if prefix else path
        told = frozenset(options.get(prefix, ()))
        yield SavedOptimizer(where, parameters, told), {key: values[key] for key in keys}


def _parameter_in(name: str) -> str:
    """A parameter's name, behind which TorchRec has the table's once more."""
    before, _, table = name.rpartition(".")
    return before if before.endswith(f".{table}.weight") else name


def _tensor(value: Any, leaf: type, load: Callable[[Any], Any]) -> tuple[Any] | None:
    """What a slot's key stands for; None if it is no tensor and no number."""
    value = value if isinstance(value, leaf) else load(value)
    if isinstance(value, bool) or not isinstance(value, leaf | torch.Tensor | int | float):
        return None
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return None
    if isinstance(value, int | float):
        return (torch.tensor(value, dtype=torch.int64 if type(value) is int else torch.float64),)
    return (value,)


def _with_only(optimizer: SavedOptimizer, kept: Mapping[str, Any]) -> SavedOptimizer:
    parameters = tuple(
        SavedParameter(p.name, p.group, {n: key for n, key in p.slots.items() if key in kept})
        for p in optimizer.parameters
    )
    return replace(optimizer, parameters=parameters)
