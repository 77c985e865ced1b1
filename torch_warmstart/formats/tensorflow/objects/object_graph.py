"""The object graph inside object-based checkpoints (`tf.train.Checkpoint`, Keras, SavedModel).

There the objects of the saved program are nodes, and edges are the names of their attributes. A
tensor's key is *one* path to it, the shortest from the root, such as
`model/layer-0/kernel/.ATTRIBUTES/VARIABLE_VALUE`, though others may lead to it; with Keras 3 even
weights of the model can have keys that begin with `optimizer/`. So a name is looked up by walking
the graph, not by looking at keys. The name that a variable itself had is in the graph too, as its
full name.

Sources: tensorflow `core/protobuf/trackable_object_graph.proto`; how keys are made of paths:
`python/checkpoint/util.py` and `python/trackable/trackable_utils.py`.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch_warmstart.formats.base import (
    ATTRIBUTES,
    VARIABLE_VALUE,
    GraphOptimizer,
    MalformedError,
    SavedLayer,
)
from torch_warmstart.formats.tensorflow.objects.layers import Metadata, graph_layers
from torch_warmstart.formats.tensorflow.objects.optimizers import Links, find_optimizers
from torch_warmstart.formats.tensorflow.wire import (
    BYTES,
    VARINT,
    all_bytes,
    decode_text,
    last_bytes,
    last_int,
    read_fields,
)

_SLOT = "/.OPTIMIZER_SLOT/"
_ESCAPED = re.compile(r"\.([.S])")  # trackable_utils.escape_local_name
_UNESCAPED = {".": ".", "S": "/"}
_ROOT = 0
_LONGEST_WAY = 100  # edges from the root to a variable, of which real models have a dozen
_ANY = "*"

# What Keras calls its lists: `layer-3`, `layer_with_weights-0`, `variables/48`.
_LAYER = re.compile(r"layer(?:_with_weights)?-\d+")
_LIST = re.compile(r"_?(?:all_|non_|trainable_|model_)*variables|keras_api")
# How little an edge says of where something is in a model; a path that says most is the best.
_NAMED, _OF_LAYER, _OF_OPTIMIZER, _OF_LIST = 1, 4, 100, 1_000


def is_storage_path(path: str) -> bool:
    """Whether a path leads through lists of Keras's own, by whose numbers nothing is called."""
    if "variables/" not in path and "layer" not in path and "keras_api/" not in path:
        return False
    parts = path.split("/")
    numbered = (
        _LIST.fullmatch(part) and behind.isdecimal() for part, behind in itertools.pairwise(parts)
    )
    return any(map(_LAYER.fullmatch, parts)) or any(numbered) or "keras_api" in parts[:-1]


@dataclass(slots=True)
class _Node:
    """A TrackableObject; of a name there may be several, since nothing forbids it."""

    children: dict[str, list[int]] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)  # by name of the attribute
    slots: dict[tuple[int, str], list[int]] = field(default_factory=dict)  # of (variable, name)
    full_name: str = ""  # of its value

    @property
    def value(self) -> str | None:
        """The key of the variable's value, if it is a variable."""
        return next(iter(self.keys.get(VARIABLE_VALUE, ())), None)

    def follow(self, edge: str) -> list[int]:
        """Where an edge leads: as named, escaped as in keys, or private as Keras 3 has kernels."""
        for name in (edge, _unescape(edge), "_" + edge):
            if name in self.children:
                return self.children[name]
        return []

    def follow_like(self, pattern: str) -> list[int]:
        """Where the edges lead whose names a pattern takes."""
        if _ANY not in pattern:
            return self.follow(pattern)
        takes = re.compile(re.escape(pattern).replace(re.escape(_ANY), ".*")).fullmatch
        return [child for name, nodes in self.children.items() if takes(name) for child in nodes]


class ObjectGraph:
    """A decoded TrackableObjectGraph.

    Cycles are fine: a walk takes as many steps as its path has parts.
    """

    def __init__(self, data: bytes) -> None:
        """Decodes a graph; raises MalformedError."""
        nodes = all_bytes(read_fields(data, {1: BYTES}), 1)
        self._full_names: dict[str, dict[str, None]] = {}  # keys in order, each once
        self._reached: dict[str, frozenset[int]] = {}  # by the root's attributes
        self._nodes = [self._decode_node(node, len(nodes)) for node in nodes]

    @functools.cached_property
    def full_names(self) -> Mapping[str, tuple[str, ...]]:
        """Full name to keys; a name that several variables share has several keys.

        TensorFlow lets the last of those win; here the caller sees them all.
        """
        return {name: tuple(keys) for name, keys in self._full_names.items()}

    def keys_of(self, name: str) -> tuple[str, ...]:
        """The keys of the tensors that a full name or a path of edge names stands for."""
        keys = list(self._full_names.get(name, ()))
        path, _, attribute = name.partition(ATTRIBUTES)
        for node in sorted(self._find_nodes(path)):
            keys += self._nodes[node].keys.get(_unescape(attribute) or VARIABLE_VALUE, ())
        return tuple(dict.fromkeys(keys)) or self._keys_within(name)

    def _keys_within(self, name: str) -> tuple[str, ...]:
        """The keys of a full name behind the root's attribute that has it: `gen/dense/kernel`.

        So one is told from that of another model whose layers are called alike.
        """
        edge, _, full_name = name.partition("/")
        keys = self._full_names.get(full_name, ())
        if not keys or full_name in self.short_names:
            return ()
        within = self._within(edge)
        return tuple(k for k in keys if not within.isdisjoint(self._nodes_of_keys.get(k, ())))

    def _within(self, edge: str) -> frozenset[int]:
        """The nodes that an attribute of the root leads to."""
        if edge not in self._reached:
            found: set[int] = set()
            waiting = list(self._nodes[_ROOT].follow(edge)) if self._nodes else []
            while waiting:
                number = waiting.pop()
                if number not in found:
                    found.add(number)
                    waiting += (child for _, child in self._edges(number))
            self._reached[edge] = frozenset(found)
        return self._reached[edge]

    def keys_like(self, pattern: str, *, in_a_scope: bool = False) -> tuple[str, ...]:
        """The keys of the tensors that paths lead to; `*` in an edge is any run of characters.

        With `in_a_scope` the paths begin at the nodes that the root has edges to.
        """
        start = {_ROOT} if self._nodes else set()
        if in_a_scope:
            start = {child for nodes in self._children(_ROOT) for child in nodes}
        keys = [
            key
            for node in sorted(self._walk(pattern, start, follow=_Node.follow_like))
            for key in self._nodes[node].keys.get(VARIABLE_VALUE, ())
        ]
        return tuple(dict.fromkeys(keys))

    @property
    def root_edges(self) -> tuple[str, ...]:
        """The names of the root's attributes."""
        return tuple(self._nodes[_ROOT].children) if self._nodes else ()

    def paths_to(self, key: str) -> tuple[str, ...]:
        """A path to each variable of a key, by the edges that say most; they can be asked for."""
        nodes = self._nodes_of_keys.get(key, ())
        paths = ("/".join(self._best_path(node)) for node in nodes if node in self._best_edges)
        return tuple(dict.fromkeys(paths))

    def _best_path(self, number: int) -> list[str]:
        edges = []
        while number != _ROOT:
            number, edge = self._best_edges[number]
            edges.append(edge)
        return edges[::-1]

    @functools.cached_property
    def short_names(self) -> frozenset[str]:
        """Full names that leave out the models which layers are in, as tf_keras's do.

        Such a layer is listed by a model that another model lists, and its name has no part more
        than the edges from there.
        """
        return frozenset(
            name
            for name, keys in self.full_names.items()
            if all(self._is_short(name, k) for k in keys)
        )

    def _is_short(self, name: str, key: str) -> bool:
        paths = [path.split("/") for path in self.paths_to(key)]
        return bool(paths) and all(map(functools.partial(_leaves_out, name), paths))

    @functools.cached_property
    def _nodes_of_keys(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, node in enumerate(self._nodes):
            if node.value is not None:
                found.setdefault(node.value, []).append(number)
        return found

    @functools.cached_property
    def _best_edges(self) -> dict[int, tuple[int, str]]:
        """For each node that is reached from the root, the last edge of the cheapest way to it.

        And the node that it comes from. A graph may be made as deep as it has nodes: where the way
        is longer than any program's, there is none.
        """
        found: dict[int, tuple[int, str]] = {}
        queue = [(0, 0, "", _ROOT, _ROOT)] if self._nodes else []
        best = {_ROOT: 0}
        while queue:
            cost, length, edge, before, number = heapq.heappop(queue)
            if number in found:
                continue
            found[number] = before, edge
            for edge, child in self._edges(number) if length < _LONGEST_WAY else ():
                total = cost + _cost(edge)
                if total < best.get(child, total + 1):
                    best[child] = total
                    heapq.heappush(queue, (total, length + 1, edge, number, child))
        return found

    def _edges(self, number: int) -> Iterator[tuple[str, int]]:
        for edge, children in self._nodes[number].children.items():
            yield from ((edge, child) for child in children)

    def _children(self, node: int) -> list[list[int]]:
        return list(self._nodes[node].children.values()) if self._nodes else []

    def optimizers(self) -> tuple[GraphOptimizer, ...]:
        """What optimizers keep, by the variables that it is for."""
        return find_optimizers(self._links, self.full_names)

    def layers(self, metadata: Metadata) -> Mapping[str, SavedLayer]:
        """The innermost layer of each variable, by key."""
        return graph_layers(self._links, metadata)

    @functools.cached_property
    def _links(self) -> list[Links]:
        return [
            Links(node.children, node.value, node.full_name, node.slots) for node in self._nodes
        ]

    def _find_nodes(self, path: str) -> set[int]:
        variable, is_slot, rest = path.partition(_SLOT)
        found = self._walk(variable)
        return self._find_slots(found, rest) if is_slot and found else found

    def _find_slots(self, variables: set[int], path: str) -> set[int]:
        """Slots of variables, whose path is that of an optimizer and then the slot's name."""
        found: set[int] = set()
        for optimizer_path, slot in _splits(path):
            for optimizer in self._walk(optimizer_path):
                slots = self._nodes[optimizer].slots
                for variable in variables:
                    found.update(slots.get((variable, slot)) or ())
                    found.update(slots.get((variable, _unescape(slot))) or ())
        return found

    def _walk(
        self,
        path: str,
        begin: Collection[int] = (_ROOT,),
        follow: Callable[[_Node, str], list[int]] = _Node.follow,
    ) -> set[int]:
        """The nodes that a path leads to from the root; an edge's own name may have slashes."""
        parts = path.split("/")
        reached: list[set[int]] = [set() for _ in range(len(parts) + 1)]
        if self._nodes:
            reached[0].update(begin)
        for start, here in enumerate(reached[:-1]):
            longest = min(len(parts), start + self._max_parts) if here else start
            for stop in range(start + 1, longest + 1):
                edge = "/".join(parts[start:stop])
                for node in here:
                    reached[stop].update(follow(self._nodes[node], edge))
        return reached[-1]

    @functools.cached_property
    def _max_parts(self) -> int:
        """Of how many parts of a path an edge's name can consist; nearly always 1."""
        return 1 + max(
            (edge.count("/") for node in self._nodes for edge in node.children), default=0
        )

    # -- decoding ----------------------------------------------------------------------------

    def _decode_node(self, data: bytes, count: int) -> _Node:
        """TrackableObject: children=1, attributes=2, slot_variables=3."""
        fields = read_fields(data, {1: BYTES, 2: BYTES, 3: BYTES})
        node = _Node()
        for child in all_bytes(fields, 1):  # ObjectReference: node_id=1, local_name=2
            about = read_fields(child, {1: VARINT, 2: BYTES})
            name = decode_text(last_bytes(about, 2) or b"")
            node.children.setdefault(name, []).append(_node_id(last_int(about, 1), count))
        for attribute in all_bytes(fields, 2):
            self._decode_attribute(attribute, node)
        for slot in all_bytes(fields, 3):  # original_variable_node_id=1, slot_name=2, slot node=3
            about = read_fields(slot, {1: VARINT, 2: BYTES, 3: VARINT})
            variable = _node_id(last_int(about, 1), count)
            name = decode_text(last_bytes(about, 2) or b"")
            slots = node.slots.setdefault((variable, name), [])
            slots.append(_node_id(last_int(about, 3), count))
        return node

    def _decode_attribute(self, data: bytes, node: _Node) -> None:
        """SerializedTensor: name=1, full_name=2, checkpoint_key=3."""
        fields = read_fields(data, {1: BYTES, 2: BYTES, 3: BYTES})
        name, full_name, key = (decode_text(last_bytes(fields, n) or b"") for n in (1, 2, 3))
        node.keys.setdefault(name, []).append(key)
        if full_name:
            node.full_name = full_name
            self._full_names.setdefault(full_name, {})[key] = None


def _node_id(number: int, count: int) -> int:
    if number >= count:  # a negative number is a huge one here
        raise MalformedError(f"an edge leads to node {number}, but there are {count}")
    return number


def _leaves_out(name: str, path: Sequence[str]) -> bool:
    listed = [at for at, edge in enumerate(path) if _LAYER.fullmatch(edge)]
    return len(listed) > 1 and name.count("/") <= len(path) - 1 - listed[-1]


def _cost(edge: str) -> int:
    if _LIST.fullmatch(edge):
        return _OF_LIST
    if _LAYER.fullmatch(edge):
        return _OF_LAYER
    return _OF_OPTIMIZER if "optimizer" in edge else _NAMED


def _unescape(name: str) -> str:
    return _ESCAPED.sub(lambda match: _UNESCAPED[match[1]], name)


def _splits(path: str) -> Iterator[tuple[str, str]]:
    """Every way to cut a path in two at a slash."""
    parts = path.split("/")
    for at in range(1, len(parts)):
        yield "/".join(parts[:at]), "/".join(parts[at:])
