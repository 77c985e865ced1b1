"""Which rows Keras's lookup layers have before their entries: for no input, for what is not listed.

A layer says so itself, by its configuration, or the list that its `get_vocabulary()` returned. What
a layer was made with stands in its configuration; what it learned by `adapt()` in an asset of
a `.keras` archive, one token a line, with those of the special rows. (keras
`layers/preprocessing/index_lookup.py:save_assets`.) In an `.h5` that is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from torch_warmstart.entries.entries import ENTRY, Entries, bytes_of
from torch_warmstart.entries.fingerprints import BY_REMAINDER, FARMHASH
from torch_warmstart.entries.making import entries_of_bytes
from torch_warmstart.entries.vocabulary import MASK, OOV, Vocabulary
from torch_warmstart.values import frozen

_ASSET = "assets/{}/vocabulary.txt"
_MOST_OOV = 1 << 32  # no table has so many rows for what is not listed
_OOV_TOKEN = "[UNK]"
_MASK_TOKEN = ""
_OF_A_LIST = 64  # OOV rows that are looked for at most in a list

# What a class, in snake case, is made with, where its configuration does not say.
_MADE_WITH: Mapping[str, Mapping[str, Any]] = {
    "string_lookup": {"mask_token": None, "oov_token": _OOV_TOKEN},
    "integer_lookup": {"mask_token": None, "oov_token": -1},
    "text_vectorization": {"mask_token": _MASK_TOKEN, "oov_token": _OOV_TOKEN},
}
LOOKUPS = tuple(_MADE_WITH)
# What `LookupLayer.from_config` reads of a configuration, and a layer in memory has as attributes.
LOOKUP_SETTINGS = (
    *("mask_token", "oov_token", "num_oov_indices", "output_mode", "oov_method", "salt"),
    *("max_tokens", "pad_to_max_tokens"),
)


@frozen
class LookupLayer:
    """What a `StringLookup`, `IntegerLookup` or `TextVectorization` says of its rows.

    (keras `layers/preprocessing/index_lookup.py`.) With `output_mode="int"` a mask token has row 0;
    then come the OOV rows, then the entries. With any other mode no input has no row, and the layer
    may be as wide as `max_tokens`.
    """

    tokens: tuple[str | int, ...]  # before the entries: the mask's, the OOV rows'
    has_mask: bool
    oov_hash: str  # which row what is not listed gets, if there are several
    width: int  # rows that there are at least

    @classmethod
    def from_config(cls, config: Mapping[str, Any], kind: str = "") -> LookupLayer | None:
        """As its configuration says; None if that is none of such a layer.

        `kind` is the layer's class in snake case, where the configuration leaves out what its class
        is made with.
        """
        config = {**_MADE_WITH.get(kind, {}), **config}
        count, mask = config.get("num_oov_indices", 1), config.get("mask_token")
        oov = config.get("oov_token", _OOV_TOKEN)
        if type(count) is not int or not 0 <= count < _MOST_OOV or not _is_token(mask, oov):
            return None
        is_int = config.get("output_mode", "int") in ("int", None)
        has_mask = mask is not None and is_int
        pads = not is_int and config.get("pad_to_max_tokens") is True
        width = config.get("max_tokens") if pads else None
        tokens = (*([mask] if has_mask else []), *([oov] * count))
        oov_hash = _hash_of(config, isinstance(oov, str))
        return cls(tokens, has_mask, oov_hash, width if type(width) is int else 0)

    def vocabulary(self, entries: Sequence[Any], origin: str) -> Vocabulary | None:
        """The layer's rows; None if there are no entries, or not all are text or all integers.

        `entries` may have the tokens in front, as `get_vocabulary()` has, or not. A layer that was
        never adapted has nothing but those.
        """
        count = len(self.tokens)
        if tuple(entries[:count]) != self.tokens:
            entries = [*self.tokens, *entries]
        if len(entries) == count:
            return None
        if all(isinstance(entry, int | np.integer) for entry in entries):
            ids = torch.tensor([int(entry) for entry in entries], dtype=torch.int64, device="cpu")
            found = Entries(origin, ENTRY, ids=ids)
        elif all(isinstance(entry, str) for entry in entries):
            found = entries_of_bytes([*map(bytes_of, entries)], origin)
        else:
            return None
        before = {MASK: int(self.has_mask), OOV: count - self.has_mask}
        made = with_rows_before(found, before, oov_hash=self.oov_hash)
        return made.padded_to(self.width)


def _is_token(mask: Any, oov: Any) -> bool:
    return all(token is None or isinstance(token, str | int) for token in (mask, oov))


def _hash_of(config: Mapping[str, Any], is_text: bool) -> str:
    if config.get("salt") is not None:
        return f"siphash64:{config['salt']}"
    if is_text or config.get("oov_method") == "farmhash":
        return FARMHASH
    return BY_REMAINDER


def with_rows_before(found: Entries, before: Mapping[str, int], **more: Any) -> Vocabulary:
    """A vocabulary that begins with special rows, whose tokens are among the entries.

    Several rows of one token have none for an entry: nobody could tell them apart.
    """
    special: dict[str, range] = {}
    start = 0
    for name, count in before.items():
        if count:
            special[name] = range(start, start + count)
            start += count
    dropped = [rows for rows in special.values() if len(rows) > 1]
    kept = torch.ones(len(found), dtype=torch.bool)
    for rows in dropped:
        kept[rows.start : rows.stop] = False
    at = kept.nonzero().flatten() if dropped else None
    listed = found if at is None else found.take(at)
    return Vocabulary(listed, len(found), at=at, special=special, **more)


def with_rows_of_a_list(found: Vocabulary) -> Vocabulary:
    """A list with the rows that `get_vocabulary()` has before the entries: `['', '[UNK]', 'a']`.

    Without one for what is not listed it is a list as any other, which begins with an empty entry.
    """
    listed = found.listed
    if not listed.is_text or found.special or len(listed) < len(found):
        return found
    first = listed.values(slice(0, _OF_A_LIST))
    masks = int(first[0] == bytes_of(_MASK_TOKEN))
    others = (at for at, value in enumerate(first[masks:]) if value != bytes_of(_OOV_TOKEN))
    oov = next(others, len(first) - masks)
    return with_rows_before(listed, {MASK: masks, OOV: oov}) if oov else found


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
