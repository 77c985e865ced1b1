"""Which way a vocabulary writes its tokens, `Ġx`, `▁x`, `##x` or plainly, told from its entries.

So that tokens of different tokenizers can be compared and spelt. Special tokens have no text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch_warmstart.entries import (
    Entries,
    byte_of,
    is_added_to_word_pieces,
    is_special,
    text_of_bytes,
    text_of_pieces,
    text_of_word_pieces,
    way_of_writing,
)

Form = Callable[[bytes], bytes | None]  # an entry's text; None: it is no text


def form_of(listed: Entries) -> Form:
    """How a vocabulary of text writes its tokens, from all that it lists."""
    return _FORMS[way_of_writing(listed.some())]


def _plain(entry: bytes) -> bytes | None:
    return None if is_special(entry) else entry


def _byte_level(entry: bytes) -> bytes | None:
    return None if is_special(entry) else text_of_bytes(entry)


def _pieces(entry: bytes) -> bytes | None:
    is_text = byte_of(entry) is not None or not is_special(entry)
    return text_of_pieces(entry) if is_text else None


def _word_pieces(entry: bytes) -> bytes | None:
    return None if is_added_to_word_pieces(entry) else text_of_word_pieces(entry)


_FORMS: Mapping[str, Form] = {
    "sentencepiece": _pieces,
    "byte_level": _byte_level,
    "wordpiece": _word_pieces,
    "": _plain,
}
