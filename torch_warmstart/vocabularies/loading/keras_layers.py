"""Keras's lookup layers: `StringLookup`, `IntegerLookup`, `TextVectorization`, of any Keras.

What rows they put before the entries `entries.LookupLayer` knows; nothing of Keras is imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from torch_warmstart.entries import LOOKUP_SETTINGS, LOOKUPS, LookupLayer, Vocabulary
from torch_warmstart.errors import VocabularyError

_CLASSES = {"IndexLookup", *("".join(map(str.title, kind.split("_"))) for kind in LOOKUPS)}
_LIBRARIES = {"keras", "tf_keras", "tensorflow"}


def is_keras_lookup(source: Any) -> bool:
    """Whether it is such a layer, or one derived from it."""
    return any(
        cls.__name__ in _CLASSES and cls.__module__.partition(".")[0] in _LIBRARIES
        for cls in type(source).__mro__
    )


def from_keras_layer(layer: Any) -> Vocabulary:
    """The rows of what follows the layer.

    Raises VocabularyError: it has no vocabulary yet, or turns indices into entries.
    """
    lookup = getattr(layer, "_lookup_layer", layer)
    origin = f"the {type(layer).__name__} {layer.name!r}"
    if getattr(lookup, "invert", False):
        raise VocabularyError(
            f"{origin} turns rows into entries (invert=True): pass the layer whose rows these are, "
            "or its entries as a sequence, in the order of their rows."
        )
    try:
        entries = [_stored(lookup, _plain(entry)) for entry in layer.get_vocabulary()]
    except Exception as error:
        raise VocabularyError(f"{origin} cannot tell its vocabulary: {error}") from error
    config = {name: _plain(getattr(lookup, name, None)) for name in LOOKUP_SETTINGS}
    made = LookupLayer.from_config(config)
    found = None if made is None else made.vocabulary(entries, origin)
    if found is None:
        raise VocabularyError(
            f"{origin} has no entries that rows could stand for: adapt() it first, or pass its "
            "entries as a sequence, in the order of their rows."
        )
    return found


def _stored(lookup: Any, entry: Any) -> Any:
    """An entry as its table has it: of bytes in UTF-8 a layer may read letters otherwise."""
    encoding = getattr(lookup, "encoding", None) or "utf-8"
    if not isinstance(entry, str) or encoding in ("utf-8", "utf8"):
        return entry
    return entry.encode(encoding).decode("utf-8", "surrogateescape")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic | np.ndarray) else value
