"""Optimizers inside an object graph, each with what it keeps for every variable.

Three ways to tie a slot to its variable, by writer:

tf.compat.v1.train, Keras before 2.11    the node lists them as `slot_variables`
Keras 2.11 to 2.15                       lists such as `_momentums`; only full names tell of which
Keras 3                                  the same lists, in the order of `_trainable_variables`

Sources: tensorflow `core/protobuf/trackable_object_graph.proto`; keras
`src/optimizers/base_optimizer.py`; tf_keras `src/optimizers/optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch_warmstart.formats.base import GraphOptimizer

_ALL, _TRAINED = "_variables", "_trainable_variables"  # lists of an optimizer of Keras 2.11 or 3
# Keras 3 appends to these lists only after they were tracked, so that in the graph they are empty;
# `_variables` ends with what they hold, variable by variable (keras/src/optimizers/adafactor.py).
_UNTRACKED = ("_r", "_c", "_v")


class Links(NamedTuple):
    """A node: where its edges lead, and what it is if it is a variable."""

    children: Mapping[str, list[int]]
    key: str | None
    full_name: str
    slots: Mapping[tuple[int, str], list[int]]


def find_optimizers(
    nodes: Sequence[Links], full_names: Mapping[str, Sequence[str]]
) -> tuple[GraphOptimizer, ...]:
    """All optimizers of a graph."""
    return tuple(
        _read_optimizer(nodes, node, full_names)
        for node in nodes
        if node.slots or (_ALL in node.children and "_iterations" in node.children)
    )


def _read_optimizer(
    nodes: Sequence[Links], optimizer: Links, full_names: Mapping[str, Sequence[str]]
) -> GraphOptimizer:
    slots: dict[str, dict[str, str]] = {}
    for variable, name, slot in _slots(nodes, optimizer, full_names):
        slots.setdefault(variable, {}).setdefault(name, slot)
    attributes = {name: nodes[found[0]].key or "" for name, found in optimizer.children.items()}
    keys = {*attributes.values(), *(key for kept in slots.values() for key in kept.values())}
    names = {node.key: node.full_name for node in nodes if node.key in keys}
    return GraphOptimizer(slots, attributes, {key: name for key, name in names.items() if key})


def _slots(
    nodes: Sequence[Links], optimizer: Links, full_names: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, str]]:
    """Key of the variable, name of the slot, key of the slot."""
    for (variable, name), found in optimizer.slots.items():
        key, slot = nodes[variable].key, nodes[found[0]].key
        if key and slot:
            yield key, name, slot
    trained = _listed(nodes, optimizer, _TRAINED)
    for name, number, slot_node in _in_lists(nodes, optimizer, len(trained)):
        slot = slot_node.key
        if trained:
            owners = [trained[number].key] if number < len(trained) else []
        else:
            owners = list(_owners_by_name(slot_node.full_name, full_names))
        for owner in owners:
            if owner and slot:
                yield owner, name, slot


def _in_lists(
    nodes: Sequence[Links], optimizer: Links, num_trained: int
) -> Iterator[tuple[str, int, Links]]:
    """Name of a list, position in it, and what is there."""
    for name in optimizer.children:
        if name not in (_ALL, _TRAINED):
            for number, node in enumerate(_listed(nodes, optimizer, name)):
                yield name, number, node
    names = [name for name in _UNTRACKED if name in optimizer.children]
    untracked = len(names) == len(_UNTRACKED) and not _listed(nodes, optimizer, names[0])
    everything, count = _listed(nodes, optimizer, _ALL), num_trained * len(_UNTRACKED)
    if untracked and count and len(everything) >= count:
        for at, node in enumerate(everything[-count:]):
            yield names[at % len(names)], at // len(names), node


def _listed(nodes: Sequence[Links], optimizer: Links, name: str) -> list[Links]:
    """The items of a list that is an attribute: a node whose edges are numbers."""
    found = optimizer.children.get(name)
    items = nodes[found[0]].children if found else {}
    numbers = sorted(int(edge) for edge in items if edge.isdecimal())
    if numbers != list(range(len(items))):
        return []
    return [nodes[items[str(number)][0]] for number in numbers]


def _owners_by_name(slot: str, full_names: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Whose slot it is: `Adam/m/dense/kernel` is for `dense/kernel`, the longest name there is."""
    parts = slot.split("/")
    for start in range(1, len(parts)):
        owners = full_names.get("/".join(parts[start:]))
        if owners:
            return owners
    return ()
