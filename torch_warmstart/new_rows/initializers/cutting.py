"""How the old tokenizer cuts texts: all at once; pieces that come as ids are named once each.

None of the tokenizers' libraries is imported for an object; for a file that of its kind is.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torch_warmstart.errors import SettingsError, cause_of, hides_entries, shown_entry
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    import numpy.typing as npt

    _Ids = npt.NDArray[np.int64]

_TOGETHER = 256  # texts that a tokenizer is given as one: by itself each costs a third more
_NONE = np.empty(0, dtype=np.int64)


@frozen(eq=False)
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
        return _telling(by(pieces))
    return _telling(lambda texts: listed([_given(pieces(text)) for text in texts]))


def _telling(cut: Cut) -> Cut:
    """The same; what a library or a user's function raises becomes ours, and may show an entry."""

    def telling(texts: list[Any]) -> Pieces:
        try:
            return cut(texts)
        except SettingsError:
            raise
        except Exception as error:  # whatever is raised for what has no token
            why = type(error).__name__ + ("" if hides_entries() else f": {error}")
            raise SettingsError(
                f"init.subword: what is to cut the new tokens' texts cannot: {why}. Give a "
                "function that returns [] for those."
            ) from cause_of(error)

    return telling


def _given(pieces: Any) -> Any:
    is_many = isinstance(pieces, Iterable) and not isinstance(pieces, str | bytes)
    return [*pieces] if is_many else pieces


def _is_list(kind: type) -> bool:
    return issubclass(kind, Sized) and issubclass(kind, Iterable)


def _by(tokenizer: Any) -> Callable[[Any], Cut] | None:
    found = (by for has, by in _TOKENIZERS if all(hasattr(tokenizer, name) for name in has))
    return next(found, None)


def listed(of_texts: Sequence[Sequence[Any]]) -> Pieces:
    """Pieces that are given as Python's values; SettingsError for what is no list of them."""
    kinds = set(map(type, of_texts))
    if any(issubclass(kind, str | bytes) for kind in kinds):
        text = next(one for one in of_texts if isinstance(one, str | bytes))
        raise SettingsError(
            f"init.subword: pieces are a list, but {shown_entry(text)} was given: [...] around it "
            "makes it one piece."
        )
    others = sorted(kind.__name__ for kind in kinds if not _is_list(kind))
    if others:
        raise SettingsError(
            f"init.subword: the pieces of a token are a list of old entries, or of their rows, not "
            f"{others[0]}; a token without any has []."
        )
    counts, pieces = _counts(of_texts), [*itertools.chain.from_iterable(of_texts)]
    try:
        names = [*dict.fromkeys(pieces)]
    except TypeError:  # what has no hash is no entry either, and whoever looks it up says so
        return Pieces(counts, pieces)
    if 2 * len(names) > len(pieces):
        return Pieces(counts, pieces)
    # Most tokens share their pieces, and to look one up costs ten times what this does.
    number_of = dict(zip(names, range(len(names)), strict=True))
    numbers = np.fromiter(map(number_of.__getitem__, pieces), np.int64, len(pieces))
    return Pieces(counts, names, torch.from_numpy(numbers))


def _numbered(counts: torch.Tensor, ids: _Ids, name_of: Callable[[int], Any]) -> Pieces:
    """Pieces that are given as ids.

    Args:
        counts: How many pieces each text has.
        ids: Of all pieces, one text after the other.
        name_of: The entry of an id; asked once for each.
    """
    distinct, numbers = _distinct(ids)
    names = [*map(name_of, distinct.tolist())]
    return Pieces(counts, names, torch.from_numpy(numbers))


def _distinct(ids: _Ids) -> tuple[_Ids, _Ids]:
    """As `np.unique` with `return_inverse`; ids of a vocabulary's size are counted, not sorted."""
    if len(ids) and ids.min() >= 0 and ids.max() < 4 * len(ids):
        occurs = np.zeros(int(ids.max()) + 1, dtype=np.bool_)
        occurs[ids] = True
        return occurs.nonzero()[0], (np.cumsum(occurs) - 1)[ids]
    distinct, numbers = np.unique(ids, return_inverse=True)
    return distinct, numbers.reshape(-1)


def _of_lists(of_texts: Sequence[Sequence[int]], name_of: Callable[[int], Any]) -> Pieces:
    """Pieces that are given as ids, a list of them for each text."""
    counts = _counts(of_texts)
    flat = itertools.chain.from_iterable(of_texts)
    ids = np.fromiter(flat, np.int64, int(counts.sum()))
    return _numbered(counts, ids, name_of)


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
    def cut(texts: list[str]) -> Pieces:
        whole = _as_trained(tokenizer)
        groups = [texts[at : at + _TOGETHER] for at in range(0, len(texts), _TOGETHER)]
        # What is said to be the words of one text is cut word by word, as if each stood alone. (Not
        # by encode_batch_fast, which does not tell whose the tokens are.)
        encoded = whole.encode_batch(groups, is_pretokenized=True, add_special_tokens=False)
        lengths = np.array([len(group) for group in groups], dtype=np.int64)
        starts = (np.cumsum(lengths) - lengths).tolist()
        of_text = [
            np.array(one.word_ids, np.int64) + at for one, at in zip(encoded, starts, strict=True)
        ]
        ids = [np.array(one.ids, np.int64) for one in encoded]
        counts = np.bincount(np.concatenate([_NONE, *of_text]), minlength=len(texts))
        unknown, added = _unknown_id(whole), whole.get_added_tokens_decoder()

        def name_of(number: int) -> str | None:
            if number == unknown:
                return None
            name: str = added[number].content if number in added else whole.id_to_token(number)
            return name

        return _numbered(torch.from_numpy(counts), np.concatenate([_NONE, *ids]), name_of)

    return cut


def _unknown_id(tokenizer: Any) -> int | None:
    """The id of what a tokenizer does not know, if it has one."""
    model = tokenizer.model
    if hasattr(model, "unk_token"):
        known: int | None = tokenizer.token_to_id(model.unk_token) if model.unk_token else None
        return known
    state: Mapping[str, Any] = json.loads(model.__getstate__())  # a unigram model only writes it
    return state.get("unk_id")


def _as_trained(tokenizer: Any) -> Any:
    """The tokenizer, or a copy of it, that neither pads nor cuts off, nor leaves merges to chance.

    Many a `tokenizer.json` says so for a model's inputs, and transformers leaves its last call's
    padding behind: it would count as pieces, and what was cut off would not.
    """
    has_limits = any(getattr(tokenizer, name, None) for name in ("padding", "truncation"))
    has_dropout = bool(getattr(tokenizer.model, "dropout", None))
    if not (has_limits or has_dropout):
        return tokenizer
    try:
        copied = copy.deepcopy(tokenizer)
    except Exception as error:  # as it has parts that are written in Python
        raise SettingsError(
            "init.subword: the tokenizer pads, truncates or drops merges, which is nothing for "
            f"single tokens, and there is no copying it without: {error}. Switch it off before: "
            "no_padding(), no_truncation(), model.dropout = None."
        ) from error
    copied.no_padding()
    copied.no_truncation()
    if has_dropout:
        copied.model.dropout = None
    return copied


def _by_tiktoken(encoding: Any) -> Cut:
    name_of = encoding.decode_single_token_bytes
    return lambda texts: _of_lists(encoding.encode_ordinary_batch(texts), name_of)


def _by_sentencepiece(processor: Any) -> Cut:
    unknown = processor.id_to_piece(processor.unk_id()) if processor.unk_id() >= 0 else None

    def cut(texts: list[str]) -> Pieces:
        # All said that a processor may have been made with.
        of_texts = processor.encode(
            texts,
            out_type=int,
            add_bos=False,
            add_eos=False,
            reverse=False,
            emit_unk_piece=False,
            enable_sampling=False,
        )
        return _without(_of_lists(of_texts, processor.id_to_piece), unknown)

    return cut


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
