"""What lookup tables in a SavedModel are filled with: constants in its graph.

A table that is an attribute of an object has a function `_initialize`, which is bound to the table,
its keys and its values. (tensorflow `core/protobuf/saved_model.proto`, `meta_graph.proto`,
`saved_object_graph.proto`, `core/framework/graph.proto`, `tensor.proto`.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.tensorflow.wire import (
    BYTES,
    VARINT,
    all_bytes,
    decode_text,
    last_bytes,
    last_int,
    read_fields,
    read_varint,
    signed,
)

FILE = "saved_model.pb"
_TABLES = ("lookup_table", "_table", "table")  # what Keras's layers call theirs
_LAYER = "_lookup_layer"  # of a TextVectorization
_INT64, _STRING = 9, 7  # tensorflow `core/framework/types.proto`

Entries = list[str] | list[int]
Column: TypeAlias = "list[bytes] | list[int]"


class _Node(NamedTuple):
    children: dict[str, int]
    functions: tuple[str, ...]  # of a function: the names of its concrete ones
    operation: str  # of a constant: the node in the graph


class _Saved(NamedTuple):
    nodes: Sequence[_Node]
    bound: Mapping[str, Sequence[int]]  # by concrete functions: the nodes they are bound to
    graph: bytes


def table_entries(data: bytes, paths: Sequence[str]) -> dict[str, Entries]:
    """The entries of layers' tables, in the order of their rows; MalformedError if it is damaged.

    Args:
        data: A `saved_model.pb`.
        paths: Of the layers, as `keras_metadata.pb` writes them: `root.layer_with_weights-0`.
    """
    saved = _read(data)
    paths = paths if saved.nodes else ()
    wanted = {path: found for path in paths if (found := _constants(saved, path))}
    ordered = ((path, _in_order(*pair)) for path, pair in _columns(saved, wanted).items())
    return {path: entries for path, entries in ordered if entries is not None}


def filled_tables(data: bytes) -> dict[str, tuple[Column, Column]]:
    """Keys and values of all tables that constants fill; MalformedError if it is damaged.

    By the names of the attributes that lead to them, from the root: `layer/lookup_table`.
    """
    saved = _read(data)
    tables = ((path, _filling(saved, node)) for path, node in _by_path(saved.nodes))
    columns = _columns(saved, {path: names for path, names in tables if names is not None})
    return {path: (keys, values) for path, (keys, values) in columns.items() if keys and values}


def _read(data: bytes) -> _Saved:
    graphs = all_bytes(read_fields(data, {2: BYTES}), 2)
    fields = read_fields(graphs[0] if graphs else b"", {2: BYTES, 7: BYTES})
    objects = read_fields(last_bytes(fields, 7) or b"", {1: BYTES, 2: BYTES})  # object_graph_def=7
    return _Saved(
        [_decode(node) for node in all_bytes(objects, 1)],
        dict(_bound(entry) for entry in all_bytes(objects, 2)),
        last_bytes(fields, 2) or b"",  # graph_def=2
    )


def _columns(
    saved: _Saved, names: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[Column | None, Column | None]]:
    """The constants of each pair of names."""
    tensors = _tensors(saved.graph, {name for pair in names.values() for name in pair})
    return {path: (tensors.get(a), tensors.get(b)) for path, (a, b) in names.items()}


def _by_path(nodes: Sequence[_Node]) -> Iterator[tuple[str, int]]:
    """Each object and a shortest way to it from the root."""
    ways = {0: ""} if nodes else {}
    waiting = deque(ways)
    while waiting:
        node = waiting.popleft()
        yield ways[node], node
        for edge in nodes[node].children:
            child = _follow(nodes, node, [edge])
            if child is not None and child not in ways:
                ways[child] = f"{ways[node]}/{edge}" if ways[node] else edge
                waiting.append(child)


def _decode(data: bytes) -> _Node:
    """SavedObject: children=1, function=6, constant=9."""
    fields = read_fields(data, {1: BYTES, 6: BYTES, 9: BYTES})
    children = {}
    for child in all_bytes(fields, 1):
        about = read_fields(child, {1: VARINT, 2: BYTES})
        children[decode_text(last_bytes(about, 2) or b"")] = last_int(about, 1)
    function = read_fields(last_bytes(fields, 6) or b"", {1: BYTES})
    constant = read_fields(last_bytes(fields, 9) or b"", {1: BYTES})
    functions = tuple(decode_text(name) for name in all_bytes(function, 1))
    return _Node(children, functions, decode_text(last_bytes(constant, 1) or b""))


def _bound(data: bytes) -> tuple[str, list[int]]:
    """A concrete function's name, and the nodes that it is bound to."""
    fields = read_fields(data, {1: BYTES, 2: BYTES})
    packed = last_bytes(read_fields(last_bytes(fields, 2) or b"", {2: BYTES}), 2) or b""
    return decode_text(last_bytes(fields, 1) or b""), _varints(packed)


def _varints(packed: bytes) -> list[int]:
    found, at = [], 0
    while at < len(packed):
        value, at = read_varint(packed, at)
        found.append(value)
    return found


def _constants(saved: _Saved, path: str) -> tuple[str, str] | None:
    """The graph's nodes that hold the keys and the values of a layer's table."""
    _, *edges = path.split(".")
    nodes = saved.nodes
    layer = _follow(nodes, 0, edges)
    inner = _follow(nodes, layer, [_LAYER])
    starts = (inner, layer)
    tables = (_follow(nodes, start, [name]) for start in starts for name in _TABLES)
    return next((found for table in tables if (found := _filling(saved, table))), None)


def _filling(saved: _Saved, table: int | None) -> tuple[str, str] | None:
    """The graph's nodes that hold the keys and the values of a table."""
    nodes = saved.nodes
    function = _follow(nodes, table, ["_initialize"])
    names = nodes[function].functions if function is not None else ()
    for name in names[:1]:
        inputs = saved.bound.get(name, ())
        if len(inputs) == 3 and max(inputs) < len(nodes):
            return nodes[inputs[1]].operation, nodes[inputs[2]].operation
    return None


def _follow(nodes: Sequence[_Node], number: int | None, edges: Sequence[str]) -> int | None:
    for edge in edges:
        if number is not None and number >= len(nodes):
            raise MalformedError(f"its object graph has {len(nodes):,} nodes, and names {number:,}")
        number = nodes[number].children.get(edge) if number is not None else None
        if number is not None and number >= len(nodes):
            raise MalformedError(f"an edge leads to node {number}, but there are {len(nodes)}")
    return number if nodes else None


# -- the graph's constants -------------------------------------------------------------------------


def _tensors(graph: bytes, names: set[str]) -> dict[str, Column]:
    """The constants of these names."""
    found = {}
    for node in all_bytes(read_fields(graph, {1: BYTES}), 1) if names else ():
        fields = read_fields(node, {1: BYTES, 5: BYTES})  # name=1, attr=5
        name = decode_text(last_bytes(fields, 1) or b"")
        if name in names:
            found[name] = _tensor(_value(all_bytes(fields, 5)))
    return found


def _value(attributes: Sequence[bytes]) -> bytes:
    for attribute in attributes:
        entry = read_fields(attribute, {1: BYTES, 2: BYTES})
        if last_bytes(entry, 1) == b"value":
            return last_bytes(read_fields(last_bytes(entry, 2) or b"", {8: BYTES}), 8) or b""
    return b""


def _tensor(proto: bytes) -> Column:
    """A vector of strings or int64: dtype=1, tensor_content=4, string_val=8, int64_val=10."""
    fields = read_fields(proto, {1: VARINT, 4: BYTES, 8: BYTES})
    kind = last_int(fields, 1)
    if kind == _STRING:
        return all_bytes(fields, 8)
    content = last_bytes(fields, 4) or b""
    if kind != _INT64 or len(content) % 8:
        return []
    if content:
        return [int(value) for value in np.frombuffer(content, dtype="<i8")]
    packed = last_bytes(read_fields(proto, {10: BYTES}), 10) or b""
    return [signed(value) for value in _varints(packed)]


def _in_order(keys: Column | None, values: Column | None) -> Entries | None:
    """Keys by their values, if these are rows one after another."""
    if not keys or not values or len(keys) != len(values):
        return None
    if not all(isinstance(row, int) for row in values):
        return None
    order = sorted(range(len(keys)), key=lambda at: values[at])
    rows = [values[at] for at in order]
    if rows != list(range(int(rows[0]), int(rows[0]) + len(rows))):
        return None
    texts = [key for key in keys if isinstance(key, bytes)]
    if len(texts) == len(keys):
        return [texts[at].decode("utf-8", "surrogateescape") for at in order]
    return [key for at in order if isinstance(key := keys[at], int)]
