"""Tokenizers in files: `vocab.json`, `tokenizer.json`, and the directory that holds one.

Which token is for what is read from `tokenizer_config.json` and `special_tokens_map.json`. A
directory of which only the class could tell how it numbers its pieces is refused.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.entries import ENTRY, Vocabulary, vocabulary_of, with_rows_of_a_list
from torch_warmstart.errors import VocabularyError, shown_entry
from torch_warmstart.storage import Storage, join
from torch_warmstart.vocabularies.loading.arrays import from_mapping, from_sequence
from torch_warmstart.vocabularies.loading.content import HEAD, empty, is_counted
from torch_warmstart.vocabularies.loading.lines import entries_of_lines
from torch_warmstart.vocabularies.loading.sentencepiece import read_model

_ROLE = "_token"  # how Hugging Face ends the names of what tokens are for: pad_token, image_token
_TOKENIZER, _VOCAB, _LINES = "tokenizer.json", "vocab.json", "vocab.txt"
_MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")
_CONFIG = "tokenizer_config.json"
_CONFIGS = ("special_tokens_map.json", _CONFIG)
_THE_OBJECT = "Pass the tokenizer itself (AutoTokenizer.from_pretrained(...))"
# Classes that take sentencepiece's numbers as they are; others move them (XLM-R, mBART, BARThez).
_AS_NUMBERED = ("Llama", "T5", "Gemma", "Albert", "XLNet", "Mistral", "Reformer", "BigBird")
_SPARSEST = 2  # rows for each token of a vocab.json at most
Read = Callable[[str], bytes]


def read_json(raw: bytes, url: str) -> Vocabulary:
    """`tokenizer.json`, `vocab.json`, or a list of entries; VocabularyError if it is other JSON."""
    found = _parsed(raw, url)
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        return _of_tokenizer(found, url)
    if isinstance(found, dict) and found and all(type(row) is int for row in found.values()):
        return _of_vocab(found, url)
    if isinstance(found, list) and found and {*map(type, found)} <= {str, int, type(None)}:
        return with_rows_of_a_list(from_sequence(found, url))
    raise VocabularyError(
        f"{url} is JSON, but neither a mapping of token to id (vocab.json), nor a tokenizer.json, "
        "nor a list of entries. Pass its entries as a sequence, in the order of their rows."
    )


def _of_vocab(rows: Mapping[str, int], url: str) -> Vocabulary:
    """A mapping of token to id; VocabularyError for what seems to be settings, or a few tokens."""
    found = from_mapping(rows, url, is_padded=True)
    if len(found) > _SPARSEST * len(rows):
        raise VocabularyError(
            f"{url} has {len(rows):,} names, and numbers up to {len(found) - 1:,}: most rows would "
            "have no entry, so these seem to be settings, or tokens added to those of another "
            "file. Pass the file that has all tokens; if these are all, pass them as a mapping."
        )
    return found


def _parsed(raw: bytes, url: str) -> Any:
    try:
        return json.loads(raw, object_pairs_hook=functools.partial(_once, url))
    except VocabularyError:
        raise
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{url} begins as JSON does, but is none: {error}.") from error


def _once(url: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a name that is there twice JSON takes the last, and says nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise VocabularyError(f"{url} has {shown_entry(twice)} twice, so its row is ambiguous.")
    return found


def _of_tokenizer(tokenizer: Mapping[str, Any], url: str) -> Vocabulary:
    """The model's tokens, and those that were added."""
    tokens = tokenizer["model"].get("vocab")
    size = len(tokens) if isinstance(tokens, list | dict) else 0
    if isinstance(tokens, list):  # Unigram: pieces with scores
        pieces = [pair[0] if isinstance(pair, list) and pair else None for pair in tokens]
        if not all(isinstance(piece, str) for piece in pieces):
            raise _no_tokenizer(url, "a piece of its vocabulary is no text")
        # Of a piece that is there twice the tokenizer only ever gives the last row.
        tokens = {piece: row for row, piece in enumerate(pieces)}
    if not isinstance(tokens, dict) or not all(type(row) is int for row in tokens.values()):
        raise _no_tokenizer(url, "its model has no vocabulary of tokens and ids")
    added = dict(_added(tokenizer.get("added_tokens") or [], url))
    _check_added(added, tokens, size, url)
    merged = {**tokens, **added}
    vocabulary = from_mapping(merged, url, is_padded=True)
    padding = tokenizer.get("padding") or {}
    roles = {"unk_token": unknown_of(tokenizer["model"]), "pad_token": padding.get("pad_token")}
    return with_roles(vocabulary, roles, merged)


def _check_added(added: Mapping[str, int], tokens: Mapping[str, int], size: int, url: str) -> None:
    """Raises VocabularyError for an id that the library would not give a token that was added.

    It does not take the file's word: a token of the model's keeps its own, the others get those
    behind the model's. What is written by hand leaves two answers. (Where the model's ids have
    gaps, the library's versions differ.)
    """
    if size != 1 + max(tokens.values(), default=-1):
        return
    behind = size
    for token, row in added.items():
        if not token:  # which is never added
            continue
        given = tokens.get(token, behind)
        if given != row:
            raise VocabularyError(
                f"{url} has id {row:,} for the added token {shown_entry(token)}, to which the "
                f"library `tokenizers` gives {given:,} when it reads the file. {_THE_OBJECT}, or a "
                "mapping of token to id, as the model was trained with."
            )
        behind += given == behind


def unknown_of(model: Mapping[str, Any]) -> Any:
    """The token for what a model does not know; a unigram model has its place."""
    pieces, place = model.get("vocab"), model.get("unk_id")
    if "unk_token" in model or not isinstance(pieces, list) or type(place) is not int:
        return model.get("unk_token")
    return pieces[place][0] if 0 <= place < len(pieces) else None


def _added(tokens: Any, url: str) -> Iterator[tuple[str, int]]:
    for token in tokens if isinstance(tokens, list) else [None]:
        content = token.get("content") if isinstance(token, dict) else None
        row = token.get("id") if isinstance(token, dict) else None
        if not isinstance(content, str) or type(row) is not int:
            raise _no_tokenizer(url, "an added token has no content or no id")
        yield content, row


def _no_tokenizer(url: str, why: str) -> VocabularyError:
    return VocabularyError(f"{url} is not a whole tokenizer.json: {why}.")


def roles_of(named: Mapping[str, Any]) -> dict[str, Any]:
    """Which token is for what, of all that a tokenizer says by name."""
    return {
        name: token
        for name, token in named.items()
        if name.endswith(_ROLE) and token and isinstance(token, str | dict)
    }


def with_roles(
    vocabulary: Vocabulary, roles: Mapping[str, Any], rows: Mapping[str, int]
) -> Vocabulary:
    """The vocabulary with what its tokens are for; tokens that it does not have are for nothing."""
    special = dict(vocabulary.special)
    for name, token in roles.items():
        text = token.get("content") if isinstance(token, Mapping) else token
        row = rows.get(str(text)) if text is not None else None
        if row is not None:
            special[name] = range(row, row + 1)
    return replace(vocabulary, special=special)


# -- a directory -----------------------------------------------------------------------------------


def is_tokenizer_directory(url: str, storage: Storage) -> bool:
    """Whether a directory holds a tokenizer's files, be they such that only its class can read."""
    if not storage.is_directory(url):
        return False
    return bool({_TOKENIZER, _VOCAB, _LINES, *_MODELS, _CONFIG} & {*storage.list_directory(url)})


def read_directory(url: str, storage: Storage) -> Vocabulary:
    """The tokenizer in a directory; rows as many as its model's `config.json` says, if it does."""
    names = set(storage.list_directory(url))

    def read(name: str) -> bytes:
        return storage.read_all(join(url, name)).tobytes()

    vocabulary = _tokens_of(url, names, read)
    roles: dict[str, Any] = {}
    configs = {name: _config(name, url, names, read) for name in (*_CONFIGS, "config.json")}
    for name in _CONFIGS:
        further = configs[name].get("extra_special_tokens")  # a list in newer ones
        roles |= roles_of(further if isinstance(further, dict) else {}) | roles_of(configs[name])
    rows = _rows_by_token(vocabulary, roles)
    vocabulary = with_roles(vocabulary, roles, rows)
    size = configs["config.json"].get("vocab_size")
    if type(size) is int and len(vocabulary) < size < 2 * len(vocabulary):
        vocabulary = vocabulary.padded_to(size)
    return vocabulary


def _tokens_of(url: str, names: set[str], read: Read) -> Vocabulary:
    if _TOKENIZER in names:
        return read_json(read(_TOKENIZER), join(url, _TOKENIZER))
    added = _config("added_tokens.json", url, names, read)
    if _VOCAB in names:
        vocabulary = read_json(read(_VOCAB), join(url, _VOCAB))
    elif _LINES in names:
        vocabulary = _of_lines(read(_LINES), join(url, _LINES))
    else:
        vocabulary = _of_model(url, names, read)
    return _with_added(vocabulary, {**_declared(url, names, read), **added})


def _of_lines(raw: bytes, url: str) -> Vocabulary:
    """`vocab.txt`; VocabularyError for one with counts, of which only a class knows the rows."""
    if is_counted(raw[:HEAD]):
        raise VocabularyError(
            f"{url} has a number behind each token, as PhoBERT's and BERTweet's have: their "
            f"tokenizers number the tokens otherwise than the lines. {_THE_OBJECT}."
        )
    if not raw:
        raise empty(url)
    # A blank line is a token: so transformers' classes read it, whose rows must be met.
    data = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    return vocabulary_of(entries_of_lines(data, url, unit=ENTRY), is_padded=True)


def _of_model(url: str, names: set[str], read: Read) -> Vocabulary:
    name = next((name for name in _MODELS if name in names), None)
    made_by = str(_config(_CONFIG, url, names, read).get("tokenizer_class") or "")
    if name is None:
        raise VocabularyError(
            f"{url} holds a tokenizer ({made_by or 'of no class that is said'}) whose vocabulary "
            f"is in none of {_TOKENIZER}, {_VOCAB}, {_LINES} or {_MODELS[0]}, so only its class "
            f"knows its rows. {_THE_OBJECT}."
        )
    if not made_by.startswith(_AS_NUMBERED):
        raise VocabularyError(
            f"{url} has only {name}, and {made_by or 'no class'} in its tokenizer_config.json: "
            f"some tokenizers number sentencepiece's pieces otherwise. {_THE_OBJECT}, or "
            f"{join(url, name)} if its numbers are meant."
        )
    return read_model(read(name), join(url, name))


def _declared(url: str, names: set[str], read: Read) -> dict[str, int]:
    """Tokens that `tokenizer_config.json` adds, by id."""
    decoder = _config(_CONFIG, url, names, read).get("added_tokens_decoder")
    found = {}
    for row, token in decoder.items() if isinstance(decoder, dict) else ():
        content = token.get("content") if isinstance(token, dict) else None
        if isinstance(content, str) and row.isdecimal() and len(row) < 12:
            found[content] = int(row)
    return found


def _with_added(vocabulary: Vocabulary, added: Mapping[str, Any]) -> Vocabulary:
    rows = {token: row for token, row in added.items() if type(row) is int}
    listed = vocabulary.rows(list(rows)).tolist() if rows else []
    further = {t.encode(): row for (t, row), at in zip(rows.items(), listed, strict=True) if at < 0}
    if not further:
        return vocabulary
    entries = list(vocabulary.entries)
    merged = {entry: row for row, entry in enumerate(entries) if entry is not None}
    found = from_mapping({**merged, **further}, vocabulary.origin, is_padded=True)
    return replace(found, special=vocabulary.special)


def _rows_by_token(vocabulary: Vocabulary, roles: Mapping[str, Any]) -> dict[str, int]:
    texts = [token.get("content") if isinstance(token, dict) else token for token in roles.values()]
    wanted = [text for text in texts if isinstance(text, str)]
    rows = vocabulary.rows(wanted).tolist() if wanted else []
    return {text: row for text, row in zip(wanted, rows, strict=True) if row >= 0}


def _config(name: str, url: str, names: set[str], read: Read) -> dict[str, Any]:
    if name not in names:
        return {}
    found = _parsed(read(name), join(url, name))
    return found if isinstance(found, dict) else {}
