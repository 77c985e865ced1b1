"""The object graph inside object-based checkpoints (`tf.train.Checkpoint`, Keras, SavedModel).

There a tensor's key is a path of attribute names, such as
`model/layer-0/kernel/.ATTRIBUTES/VARIABLE_VALUE`, and the name that the variable itself had is kept
in the graph as its full name.

Source: tensorflow `core/protobuf/trackable_object_graph.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch_warmstart.formats.wire import BYTES, all_bytes, decode_text, last_bytes, read_fields

KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
ATTRIBUTE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def full_names(graph: bytes) -> Mapping[str, tuple[str, ...]]:
    """Full name to checkpoint keys; a name that several variables share has several keys.

    TensorFlow lets the last of those win; here the caller sees them all. Raises WireError.
    """
    names: dict[str, list[str]] = {}
    for node in all_bytes(read_fields(graph, {1: BYTES}), 1):
        for attribute in all_bytes(read_fields(node, {2: BYTES}), 2):
            fields = read_fields(attribute, {2: BYTES, 3: BYTES})
            full_name = decode_text(last_bytes(fields, 2) or b"")
            key = decode_text(last_bytes(fields, 3) or b"")
            keys = names.setdefault(full_name, [])
            if key not in keys:
                keys.append(key)
    names.pop("", None)
    return {name: tuple(keys) for name, keys in names.items()}
