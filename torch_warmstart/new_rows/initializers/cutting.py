"""How the old tokenizer cuts texts: all at once; pieces that come as ids are named once each.

None of the tokenizers' libraries is imported for an object; for a file that of its kind is.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torch_warmstart.errors import SettingsError, shown_entry


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """The pieces of texts, one text after the other.

    Args:
        counts: int64 of `[texts]`: how many pieces each has.
        names: What they are called: entries of the old vocabulary, or its ids; None: unknown.
        numbers: int64: of each piece the number of its name. None: each has a name of its own.
    """

    counts: torch.Tensor
    names: Sequence[Any]
    numbers: torch.Tensor | None = None


Cut = Callable[[list[Any]], Pieces]


def check_pieces(pieces: Any) -> None:
    """Raises SettingsError for what cuts no text."""
    is_path = isinstance(pieces, str | os.PathLike)
    if not (is_path or callable(pieces) or isinstance(pieces, Mapping)) and _by(pieces) is None:
        raise SettingsError(
            "init.subword takes the old tokenizer (of tokenizers, transformers, sentencepiece or "
            "tiktoken, or the path of its tokenizer.json or .model), a function from a token's "
            "text to its pieces, or a mapping from new entries to pieces; not a "
            f"{type(pieces).__name__}."
        )
    if isinstance(pieces, Mapping) and not pieces:
        raise SettingsError("init.subword: the mapping is empty.")


def cut_by(pieces: Any) -> Cut:
    """What cuts texts with a tokenizer or a function; reads a tokenizer's file."""
    if isinstance(pieces, str | os.PathLike):
        pieces = _read(Path(pieces))
    by = _by(pieces)
    if by is not None:
        return by(pieces)
    return lambda texts: listed([_given(pieces(text)) for text in texts])


def _given(pieces: Any) -> Sequence[Any]:
    return pieces if isinstance(pieces, str | bytes) else [*pieces]


def _by(tokenizer: Any) -> Callable[[Any], Cut] | None:
    found = (by for has, by in _TOKENIZERS if all(hasattr(tokenizer, name) for name in has))
    return next(found, None)


def listed(of_texts: Sequence[Sequence[Any]]) -> Pieces:
    """Pieces that are given as Python's values; SettingsError for a text where they are asked."""
    if any(issubclass(kind, str | bytes) for kind in set(map(type, of_texts))):
        text = next(one for one in of_texts if isinstance(one, str | bytes))
        raise SettingsError(
            f"init.subword: pieces are a list, but {shown_entry(text)} was given: [...] around it "
            "makes it one piece."
        )
    return Pieces(_counts(of_texts), [*itertools.chain.from_iterable(of_texts)])


def _numbered(of_texts: Sequence[Sequence[int]], name_of: Callable[[int, int, int], Any]) -> Pieces:
    """Pieces that are given as ids.

    Args:
        of_texts: The ids of each text's pieces.
        name_of: The entry of an id, of which it also gets a place where it occurs: a text and a
            piece.
    """
    counts = _counts(of_texts)
    flat = itertools.chain.from_iterable(of_texts)
    ids = np.fromiter(flat, np.int64, int(counts.sum()))
    distinct, at, numbers = np.unique(ids, return_index=True, return_inverse=True)
    ends = counts.cumsum(0)
    text = torch.searchsorted(ends, torch.from_numpy(at), right=True)
    place = torch.from_numpy(at) - (ends - counts)[text]
    names = map(name_of, distinct.tolist(), text.tolist(), place.tolist())
    return Pieces(counts, [*names], torch.from_numpy(numbers.reshape(-1)))


def _counts(lists: Sequence[Sequence[Any]]) -> torch.Tensor:
    return torch.from_numpy(np.fromiter(map(len, lists), np.int64, len(lists)))


# -- tokenizers ------------------------------------------------------------------------------------
#
# What a text is cut into that the tokenizer does not know is named None, which no vocabulary has.


def _by_fast(tokenizer: Any) -> Cut:
    return _by_tokenizers(tokenizer.backend_tokenizer)


def _by_slow(tokenizer: Any) -> Cut:
    unknown = getattr(tokenizer, "unk_token", None)
    return lambda texts: _without(listed([tokenizer.tokenize(text) for text in texts]), unknown)


def _by_tokenizers(tokenizer: Any) -> Cut:
    unknown = getattr(tokenizer.model, "unk_token", None)

    def cut(texts: list[str]) -> Pieces:
        # Not by encode_batch_fast, which names no tokens.
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)

        def name_of(_: int, text: int, place: int) -> Any:
            # By where it occurs, as the id of what is unknown has the name of another token.
            return encoded[text].tokens[place]

        return _without(_numbered([one.ids for one in encoded], name_of), unknown)

    return cut


def _by_tiktoken(encoding: Any) -> Cut:
    def name_of(number: int, _: int, __: int) -> Any:
        return encoding.decode_single_token_bytes(number)

    return lambda texts: _numbered(encoding.encode_ordinary_batch(texts), name_of)


def _by_sentencepiece(processor: Any) -> Cut:
    unknown = processor.id_to_piece(processor.unk_id()) if processor.unk_id() >= 0 else None

    def name_of(number: int, _: int, __: int) -> Any:
        return processor.id_to_piece(number)

    return lambda texts: _without(_numbered(processor.encode(texts), name_of), unknown)


def _without(pieces: Pieces, unknown: Any) -> Pieces:
    return replace(pieces, names=[None if name == unknown else name for name in pieces.names])


# How an object shows whose tokenizer it is, and how it cuts.
_TOKENIZERS: Sequence[tuple[tuple[str, ...], Callable[[Any], Cut]]] = (
    (("backend_tokenizer", "is_fast"), _by_fast),  # of transformers
    (("encode_batch", "token_to_id"), _by_tokenizers),
    (("encode_ordinary_batch", "decode_single_token_bytes"), _by_tiktoken),
    (("id_to_piece", "unk_id"), _by_sentencepiece),
    (("tokenize", "convert_tokens_to_ids"), _by_slow),  # of transformers
)


# -- a tokenizer's file ----------------------------------------------------------------------------


def _read(path: Path) -> Any:
    """The tokenizer in a file, or in a directory's `tokenizer.json`."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.suffix == ".model":
        library, read = "sentencepiece", _read_sentencepiece
    elif file.suffix == ".json":
        library, read = "tokenizers", _read_tokenizers
    else:
        raise SettingsError(
            f"init.subword: {file} is no tokenizer.json and no .model of sentencepiece; give the "
            "tokenizer itself."
        )
    if not file.is_file():
        raise SettingsError(f"init.subword: there is no {file}.")
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise SettingsError(
            f"init.subword: to cut text by {file} needs {library}: pip install {library}."
        ) from error
    try:
        return read(module, str(file))
    except Exception as error:  # whatever a library raises for a file that is none of its own
        raise SettingsError(f"init.subword: {library} cannot read {file}: {error}") from error


def _read_tokenizers(module: Any, path: str) -> Any:
    return module.Tokenizer.from_file(path)


def _read_sentencepiece(module: Any, path: str) -> Any:
    return module.SentencePieceProcessor(model_file=path)
