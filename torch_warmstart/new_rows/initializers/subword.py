"""New rows from the pieces into which the old tokenizer cuts a new token's text.

Cut all at once where the tokenizer can, looked up in the old vocabulary by one join, and weighted
by place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.initializers.forms import form_of
from torch_warmstart.new_rows.mixture import Mixture, mixture_of, normalised
from torch_warmstart.new_rows.rows import NewRows

Weights = Literal["mean", "last", "first", "exp"]
Role = Literal["auto", "input", "output"]
Pieces = Sequence[Any]  # entries of the old vocabulary, or its ids

_DECAY = 0.5  # of "exp", from a piece to the next


class Subword(RowInitializer):
    """A weighted mean of a token's pieces."""

    name = "subword"

    def __init__(self, pieces: Any, weights: Weights, role: Role) -> None:
        self._cut, self._takes_entries = _cutter(pieces)
        self._weights, self._role = weights, role
        self.by_role = weights == "exp" and role == "auto"

    def __call__(self, new: NewRows) -> Mixture:
        pieces = self._pieces(new)
        counts = torch.tensor([*map(len, pieces)], dtype=torch.int64)
        row_of = torch.repeat_interleave(torch.arange(len(new)), counts)
        flat = [piece for of_row in pieces for piece in of_row]
        old_rows = _rows_of(flat, new)
        row_of, old_rows = row_of[old_rows >= 0], old_rows[old_rows >= 0]
        kept = torch.bincount(row_of, minlength=len(new))
        begins = torch.cumsum(kept, 0) - kept
        place = torch.arange(len(row_of)) - begins[row_of]
        weights = self._weigh(place, kept[row_of] - 1 - place, new)
        row_of, old_rows, weights = (x[weights > 0] for x in (row_of, old_rows, weights))
        return mixture_of(row_of, old_rows, normalised(row_of, weights, len(new)), len(new))

    def _weigh(self, place: torch.Tensor, behind: torch.Tensor, new: NewRows) -> torch.Tensor:
        """A piece's weight, by how many stand before and behind it.

        "exp" is heaviest where a model needs it: what it has just read is a token's last piece, and
        what it says first is the first one.
        """
        if self._weights == "mean":
            return torch.ones_like(place, dtype=torch.float32)
        if self._weights != "exp":
            return ((behind if self._weights == "last" else place) == 0).float()
        role = new.role if self._role == "auto" else self._role
        return _DECAY ** (place if role in ("output", "bias") else behind).double()

    def _pieces(self, new: NewRows) -> list[Pieces]:
        """The pieces of each row; none for those without an entry, or without text."""
        values = new.entries().values(slice(None))
        texts = values if self._takes_entries else _texts(values, new)
        asked = [at for at, text in enumerate(texts) if text is not None]
        cut = self._cut([texts[at] for at in asked])
        of_entries: list[Pieces] = [()] * len(values)
        for at, pieces in zip(asked, cut, strict=True):
            of_entries[at] = pieces
        out: list[Pieces] = [()] * len(new)
        for at, pieces in zip(new.has_entry.nonzero().flatten().tolist(), of_entries, strict=True):
            out[at] = pieces
        return out


def _texts(values: Sequence[Any], new: NewRows) -> list[str | None]:
    """Tokens' texts; None for special ones, and for bytes that are no text by themselves."""
    assert new.vocabulary is not None
    if not new.vocabulary.listed.is_text:
        raise SettingsError(
            f"{new.name}: init.subword cuts text, but the new vocabulary's entries are integers."
        )
    form = form_of(new.vocabulary.listed)
    return [_decoded(form(value)) for value in values]


def _decoded(text: bytes | None) -> str | None:
    if not text:
        return None
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def _rows_of(pieces: list[Any], new: NewRows) -> torch.Tensor:
    """The old row of each piece, or -1; pieces are entries, or the old table's rows."""
    if not pieces:
        return torch.empty(0, dtype=torch.int64)
    if all(isinstance(piece, int) for piece in pieces) and _is_text(new):
        rows = torch.tensor(pieces, dtype=torch.int64)
        if int(rows.min()) < 0 or int(rows.max()) >= new.old.size:
            raise SettingsError(
                f"{new.name}: init.subword: the tokenizer gives id {int(rows.max()):,}, but the "
                f"old vocabulary has {new.old.size:,} rows. Is it the old table's tokenizer?"
            )
        return rows
    distinct: dict[Any, int] = {}  # few, as most pieces occur again and again
    places = [distinct.setdefault(piece, len(distinct)) for piece in pieces]
    found = new.old.find(new.old.outside.entries(list(distinct)))
    return found[torch.tensor(places, dtype=torch.int64)]


def _is_text(new: NewRows) -> bool:
    return new.old.vocabulary is None or new.old.vocabulary.listed.is_text


# -- tokenizers ------------------------------------------------------------------------------------

Cut = Callable[[list[Any]], Sequence[Pieces]]


def _cutter(pieces: Any) -> tuple[Cut, bool]:
    """What cuts texts with a tokenizer, and whether it wants entries instead."""
    for has, cut_by in _TOKENIZERS:
        if all(hasattr(pieces, name) for name in has):
            return cut_by(pieces), False
    if isinstance(pieces, Mapping):
        return _by_mapping(pieces), True
    if callable(pieces):
        return lambda texts: [list(pieces(text)) for text in texts], False
    raise SettingsError(
        "init.subword takes the old tokenizer (of tokenizers, transformers, sentencepiece or "
        "tiktoken), a function from a token's text to its pieces, or a mapping from new entries "
        f"to pieces; not a {type(pieces).__name__}."
    )


def _by_mapping(pieces: Mapping[Any, Pieces]) -> Cut:
    known = {key.encode() if isinstance(key, str) else key: value for key, value in pieces.items()}
    return lambda entries: [known.get(entry, ()) for entry in entries]


def _by_fast(tokenizer: Any) -> Cut:
    return _by_tokenizers(tokenizer.backend_tokenizer)


def _by_slow(tokenizer: Any) -> Cut:
    unknown = {getattr(tokenizer, "unk_token", None)}
    return lambda texts: [_without(tokenizer.tokenize(text), unknown) for text in texts]


def _by_tokenizers(tokenizer: Any) -> Cut:
    unknown = {getattr(tokenizer.model, "unk_token", None)}

    def cut(texts: list[str]) -> Sequence[Pieces]:
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        return [_without(one.tokens, unknown) for one in encoded]

    return cut


def _by_tiktoken(encoding: Any) -> Cut:
    def cut(texts: list[str]) -> Sequence[Pieces]:
        ids = encoding.encode_ordinary_batch(texts)
        return [[encoding.decode_single_token_bytes(one) for one in of_text] for of_text in ids]

    return cut


def _by_sentencepiece(processor: Any) -> Cut:
    unknown = {processor.id_to_piece(processor.unk_id())} if processor.unk_id() >= 0 else set()

    def cut(texts: list[str]) -> Sequence[Pieces]:
        return [_without(of_text, unknown) for of_text in processor.encode(texts, out_type=str)]

    return cut


def _without(pieces: Sequence[Any], unknown: set[Any]) -> Pieces:
    return [piece for piece in pieces if piece not in unknown]


# How an object shows whose tokenizer it is, and how it cuts. None of their libraries is imported.
_TOKENIZERS: Sequence[tuple[tuple[str, ...], Callable[[Any], Cut]]] = (
    (("backend_tokenizer", "is_fast"), _by_fast),  # of transformers
    (("encode_batch", "token_to_id"), _by_tokenizers),
    (("encode_ordinary_batch", "decode_single_token_bytes"), _by_tiktoken),
    (("id_to_piece", "unk_id"), _by_sentencepiece),
    (("tokenize", "convert_tokens_to_ids"), _by_slow),  # of transformers
)
