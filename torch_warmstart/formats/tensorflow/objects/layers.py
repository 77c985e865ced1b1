"""The layers of an object-based checkpoint: nodes that have variables as attributes.

Which class one is follows from its attributes, as far as they tell, or from `keras_metadata.pb`,
which tf_keras writes into a SavedModel beside the checkpoint: JSON for each object, by its path of
edge names from the root.

Source: tf_keras `saving/legacy/saved_model/save.py`, `protobuf/saved_metadata.proto`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch_warmstart.formats.base import MalformedError, SavedLayer
from torch_warmstart.formats.class_names import (
    OTHER,
    lookalike_by_name,
    product_by_name,
    snake_case,
)
from torch_warmstart.formats.tensorflow.objects.optimizers import Links
from torch_warmstart.formats.tensorflow.wire import (
    BYTES,
    all_bytes,
    decode_text,
    last_bytes,
    read_fields,
)

Metadata = Mapping[str, Mapping[str, Any]]  # by path: "root.layer_with_weights-0"

METADATA_FILE = "keras_metadata.pb"
_ROOT = "root"
# Attributes that are layers of a layer; lists of them have numbers in between.
_WITHIN = ("cell", "cells", "layer", "forward_layer", "backward_layer")
_DENSE = "_dense"  # the end of those of an attention
# The one tensor of Keras's RMSNormalization, which no other layer of Keras calls so.
_RMS_TENSOR, _RMS = "scale", "rms_normalization"
# What nodes of a class have, and of no other: all of it must be there.
_SIGNATURES = (
    (frozenset({"partial_output_shape", "full_output_shape"}), "einsum_dense"),
    (frozenset({"forward_layer", "backward_layer"}), "bidirectional"),
    (frozenset({"cells"}), "stacked_rnn_cells"),
    (frozenset({"cell"}), "rnn"),
    (frozenset({"_query_dense", "_key_dense", "_value_dense"}), "multi_head_attention"),
)


def read_metadata(data: bytes) -> Metadata:
    """What `keras_metadata.pb` says of each object; raises MalformedError."""
    found = {}
    for node in all_bytes(read_fields(data, {1: BYTES}), 1):
        fields = read_fields(node, {3: BYTES, 5: BYTES})  # node_path=3, metadata=5
        path, text = (decode_text(last_bytes(fields, number) or b"") for number in (3, 5))
        try:
            about = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"what it says of {path!r} is no JSON") from error
        if isinstance(about, dict):
            found[path] = about
    return found


def graph_layers(nodes: Sequence[Links], metadata: Metadata) -> Mapping[str, SavedLayer]:
    """The innermost layer of each variable, by the variable's key.

    Keras 3's `export()` lists variables and no layers; there their full names say which are of one.
    """
    found = _Layers(nodes, metadata).by_key()
    by_name: dict[str, dict[str, str]] = {}  # by layer; of a variable that is there twice one key
    others = [n for n in nodes if n.key is not None and n.key not in found and "/" in n.full_name]
    for node in others:
        assert node.key is not None
        layer, _, name = node.full_name.rpartition("/")
        by_name.setdefault(layer, {}).setdefault(name, node.key)
    named = {
        name: SavedLayer(name, _kind_by_name(name, keys), keys=tuple(keys.values()))
        for name, keys in by_name.items()
    }
    by_key = {str(node.key): named[node.full_name.rpartition("/")[0]] for node in others}
    return by_key | found


class _Layers:
    """The layers of one graph; a node of several objects is of the first."""

    def __init__(self, nodes: Sequence[Links], metadata: Metadata) -> None:
        self._nodes = nodes
        self._about = dict(self._described(metadata))
        self._made: dict[int, SavedLayer] = {}
        self._around: dict[int, int] = {}
        for number in range(len(nodes)):
            for child in self._within(number):
                self._around.setdefault(child, number)

    def by_key(self) -> dict[str, SavedLayer]:
        found: dict[str, SavedLayer] = {}
        for number in range(len(self._nodes)):
            own = self._own(number)
            if own:
                layer = self._layer(number, frozenset())
                for key in own:
                    found.setdefault(key, layer)
        return found

    def _described(self, metadata: Metadata) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for path, about in metadata.items():
            first, *edges = path.split(".")
            at: int | None = 0 if first == _ROOT and self._nodes else None
            for edge in edges:
                at = None if at is None else self._child(at, edge)
            if at is not None:
                yield at, about

    def _child(self, number: int, edge: str) -> int | None:
        return next(iter(self._nodes[number].children.get(edge, ())), None)

    def _own(self, number: int) -> list[str]:
        """The keys of the variables that are attributes of a node."""
        return [
            key
            for edge, children in self._nodes[number].children.items()
            if not edge.isdecimal()
            for child in children
            if (key := self._nodes[child].key) is not None
        ]

    def _within(self, number: int) -> Iterator[int]:
        """The layers that are attributes of a node, or in a list that is one."""
        for edge, children in self._nodes[number].children.items():
            if edge in _WITHIN or edge.endswith(_DENSE):
                for child in children:
                    listed = self._nodes[child].children
                    numbered = [n for name, c in listed.items() if name.isdecimal() for n in c]
                    yield from numbered if edge == "cells" else (child,)

    def _layer(self, number: int, inside: frozenset[int]) -> SavedLayer:
        if number not in self._made:
            around = self._around.get(number)
            is_circle = around is None or around in inside or around == number
            about = self._about.get(number, {})
            options = about.get("config")
            self._made[number] = SavedLayer(
                self._name(number),
                self._kind(number, about),
                options if isinstance(options, dict) else None,
                tuple(dict.fromkeys(self._all(number))),
                None if is_circle else self._layer(around, inside | {number}),  # type: ignore[arg-type]
            )
        return self._made[number]

    def _all(self, number: int) -> list[str]:
        """The keys of a layer's variables, and of those of the layers within."""
        keys, seen, todo = [], {number}, [number]
        while todo:
            at = todo.pop(0)
            keys += self._own(at)
            new = [child for child in self._within(at) if child not in seen]
            seen.update(new)
            todo += new
        return keys

    def _name(self, number: int) -> str:
        called = self._about.get(number, {}).get("name")
        if isinstance(called, str):
            return called
        children = self._nodes[number].children.values()
        names = (self._nodes[child].full_name for found in children for child in found)
        return next((name.rpartition("/")[0] for name in names if "/" in name), "")

    def _kind(self, number: int, about: Mapping[str, Any]) -> str:
        class_name = about.get("class_name")
        if isinstance(class_name, str):
            return snake_case(class_name)
        has = self._nodes[number].children.keys()
        known = next((kind for needed, kind in _SIGNATURES if needed <= has), "")
        name = self._name(number)
        known = known or lookalike_by_name(name)
        if not known and "kernel" in has:  # of tf_keras, whose EinsumDense has a signature
            return OTHER
        own = [
            edge
            for edge, children in self._nodes[number].children.items()
            if any(self._nodes[child].key is not None for child in children)
        ]
        return known or _kind_by_name(name, own)


def _kind_by_name(layer: str, tensors: Iterable[str]) -> str:
    """The class that the names of a layer and of its own tensors tell, or ""."""
    if list(tensors) == [_RMS_TENSOR]:
        return _RMS
    return product_by_name(layer) or lookalike_by_name(layer)
