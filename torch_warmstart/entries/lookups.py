"""Lookup layers as a file tells of them: which vocabulary one has, by its configuration.

What a layer was made with stands in its configuration; what it learned by `adapt()` in an asset of
a `.keras` archive, one token a line, with those of the special rows. (keras
`layers/preprocessing/index_lookup.py:save_assets`.) In an `.h5` that is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch_warmstart.entries.making import LookupLayer
from torch_warmstart.entries.vocabulary import Vocabulary

_ASSET = "assets/{}/vocabulary.txt"


class Lookup(NamedTuple):
    """A lookup layer as a file tells of it."""

    name: str
    kind: str
    options: Mapping[str, Any]
    folder: str = ""  # where an archive has what belongs to it
    entries: Sequence[Any] | None = None  # that were found elsewhere than in its configuration


def vocabularies_of(
    lookups: Iterable[Lookup], url: str, read: Callable[[str], bytes | None] = lambda _: None
) -> dict[str, Vocabulary]:
    """The vocabularies by the layers' names; of a name that two have, neither.

    Args:
        lookups: The layers.
        url: The file, for messages.
        read: Reads an asset of the archive; None if there is none.
    """
    found: dict[str, Vocabulary] = {}
    twice: set[str] = set()
    for lookup in lookups:
        made = _vocabulary_of(lookup, f"{url}[{lookup.name}]", read)
        if made is None:
            continue
        twice |= {lookup.name} & found.keys()
        found[lookup.name] = made
    return {name: made for name, made in found.items() if name not in twice}


def _vocabulary_of(
    lookup: Lookup, origin: str, read: Callable[[str], bytes | None]
) -> Vocabulary | None:
    layer = LookupLayer.from_config(lookup.options, lookup.kind)
    if layer is None or lookup.options.get("invert") is True:
        return None
    entries = _listed(lookup.options.get("vocabulary"))
    if entries is None and lookup.entries is not None:
        entries = list(lookup.entries)
    if entries is None:
        raw = read(_ASSET.format(lookup.folder)) if lookup.folder else None
        if raw is None:
            return None
        entries = _lines(raw, lookup.kind)
    if not entries:
        return None
    return layer.vocabulary(entries, origin)


def _listed(value: Any) -> list[Any] | None:
    """A vocabulary in a configuration: a list, or Keras 3's word for an array."""
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        value = value["config"].get("value")
    return value if isinstance(value, list) else None


def _lines(raw: bytes, kind: str) -> list[Any] | None:
    lines = raw.decode("utf-8", "surrogateescape").split("\n")
    if kind != "integer_lookup":
        return list(lines)
    try:
        return [int(line) for line in lines]
    except ValueError:
        return None
