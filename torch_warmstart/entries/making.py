"""Entries from values of Python's, and the rows that a lookup layer of Keras's puts before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torch_warmstart.entries.entries import Entries
from torch_warmstart.entries.vocabulary import MASK, OOV, Vocabulary
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    import numpy.typing as npt

_ENTRY = "entry"
_MOST_OOV = 1 << 32  # no table has so many rows for what is not listed
MOST_ROWS = 1 << 48  # no table has so many


def text_entries(
    data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], origin: str, unit: str = _ENTRY
) -> Entries:
    """Entries that lie one behind the other in a buffer."""
    bounds = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=bounds[1:])
    held = torch.from_numpy(data if len(data) else np.zeros(1, dtype=np.uint8))
    return Entries(origin, unit, held, torch.from_numpy(bounds))


def entries_of_bytes(entries: Sequence[bytes], origin: str, unit: str = _ENTRY) -> Entries:
    """Entries that are bytes of Python's."""
    data = np.frombuffer(bytearray(b"".join(entries)), dtype=np.uint8)
    return text_entries(data, np.fromiter(map(len, entries), np.int64, len(entries)), origin, unit)


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


# What a class is made with, where its configuration does not say.
_MADE_WITH: Mapping[str, Mapping[str, Any]] = {
    "string_lookup": {"mask_token": None, "oov_token": "[UNK]"},
    "integer_lookup": {"mask_token": None, "oov_token": -1},
    "text_vectorization": {"mask_token": "", "oov_token": "[UNK]"},
}
LOOKUPS = tuple(_MADE_WITH)


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
        oov = config.get("oov_token", "[UNK]")
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
            found = Entries(origin, _ENTRY, ids=ids)
        elif all(isinstance(entry, str) for entry in entries):
            raw = [entry.encode("utf-8", "surrogateescape") for entry in entries]
            found = entries_of_bytes(raw, origin)
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
        return "farmhash64"
    return "floormod"


def placed(entries: Entries, rows: torch.Tensor) -> Vocabulary | None:
    """Entries with a row each, int64 in any order; None if two have one, or one is no row."""
    order = torch.argsort(rows)
    rows = rows[order]
    if not len(rows) or int(rows[0]) < 0 or int(rows[-1]) >= MOST_ROWS:
        return None
    if bool((rows.diff() == 0).any()):
        return None
    last = int(rows[-1])
    is_whole = last == len(rows) - 1
    return Vocabulary(entries.take(order), last + 1, at=None if is_whole else rows)
