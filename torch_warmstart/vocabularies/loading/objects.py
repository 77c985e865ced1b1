"""Objects that have a vocabulary: tokenizers, known by the module that their class comes from.

Nothing is imported for them: whoever passes one has imported its library.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from torch_warmstart.entries import Vocabulary
from torch_warmstart.vocabularies.loading.arrays import from_mapping
from torch_warmstart.vocabularies.loading.keras_layers import from_keras_layer, is_keras_lookup
from torch_warmstart.vocabularies.loading.sentencepiece import read_model
from torch_warmstart.vocabularies.loading.tokenizer_files import ROLES, unknown_of, with_roles


def from_object(source: Any) -> Vocabulary | None:
    """The vocabulary of a tokenizer or a lookup layer; None if it is neither."""
    if is_keras_lookup(source):
        return from_keras_layer(source)
    libraries = {cls.__module__.partition(".")[0] for cls in type(source).__mro__}
    for library, method, read in _TOKENIZERS:
        if library in libraries and hasattr(source, method):
            return read(source)
    return None


def _origin(source: Any) -> str:
    return f"the {type(source).__name__}"


def _from_transformers(tokenizer: Any) -> Vocabulary:
    """Hugging Face's, fast and slow: all tokens by id, the added ones too."""
    rows = {**tokenizer.get_vocab(), **tokenizer.get_added_vocab()}
    vocabulary = from_mapping(rows, _origin(tokenizer), is_padded=True)
    return with_roles(vocabulary, {role: getattr(tokenizer, role, None) for role in ROLES}, rows)


def _from_tokenizers(tokenizer: Any) -> Vocabulary:
    rows = tokenizer.get_vocab(with_added_tokens=True)
    vocabulary = from_mapping(rows, _origin(tokenizer), is_padded=True)
    model = tokenizer.model
    if hasattr(model, "unk_token"):
        unknown = model.unk_token
    else:  # a unigram model only writes it
        unknown = unknown_of(json.loads(model.__getstate__()))
    padding = (tokenizer.padding or {}).get("pad_token")
    return with_roles(vocabulary, {"unk_token": unknown, "pad_token": padding}, rows)


def _from_sentencepiece(processor: Any) -> Vocabulary:
    return read_model(processor.serialized_model_proto(), _origin(processor))


def _from_tiktoken(encoding: Any) -> Vocabulary:
    """Tokens as bytes, special ones as they are written; ids that none has are gaps."""
    tokens = encoding.token_byte_values()
    rows = {token: encoding.encode_single_token(token) for token in tokens}
    for text in sorted(encoding.special_tokens_set):
        rows.setdefault(text.encode(), encoding.encode_single_token(text))
    return from_mapping(rows, f"tiktoken's {encoding.name}", is_padded=True)


_TOKENIZERS: tuple[tuple[str, str, Callable[[Any], Vocabulary]], ...] = (
    ("transformers", "get_vocab", _from_transformers),
    ("tokenizers", "get_vocab", _from_tokenizers),
    ("sentencepiece", "serialized_model_proto", _from_sentencepiece),
    ("tiktoken", "token_byte_values", _from_tiktoken),
)
