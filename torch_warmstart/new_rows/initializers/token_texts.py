"""Which way a vocabulary writes its tokens, `Ġx`, `▁x`, `##x` or plainly, told from its entries.

So that tokens of different tokenizers can be compared and spelt. Special tokens have no text.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch_warmstart.entries import (
    INSIDE_A_WORD,
    SPACE_OF_BYTES,
    SPACE_OF_PIECES,
    Entries,
    byte_of,
    is_added_to_word_pieces,
    is_special,
    text_of_bytes,
    text_of_pieces,
    text_of_word_pieces,
)

Form = Callable[[bytes], bytes | None]  # an entry's text; None: it is no text

_TRIED = 20_000  # entries looked at to tell the form
_SHARE = 0.005  # of them that must show a form


def form_of(listed: Entries) -> Form:
    """How a vocabulary of text writes its tokens, from all that it lists."""
    step = max(1, len(listed) // _TRIED)
    some = listed.take(torch.arange(0, len(listed), step, device=listed.device))
    tried = [value for value in some.values(slice(None)) if isinstance(value, bytes)]
    shown = {
        _byte_level: sum(SPACE_OF_BYTES in value for value in tried),
        _pieces: sum(SPACE_OF_PIECES in value for value in tried),
        _word_pieces: sum(value.startswith(INSIDE_A_WORD) for value in tried),
    }
    form, count = max(shown.items(), key=lambda pair: pair[1])
    return form if count > _SHARE * len(tried) else _plain


def _plain(entry: bytes) -> bytes | None:
    return None if is_special(entry) else entry


def _byte_level(entry: bytes) -> bytes | None:
    return None if is_special(entry) else text_of_bytes(entry)


def _pieces(entry: bytes) -> bytes | None:
    is_text = byte_of(entry) is not None or not is_special(entry)
    return text_of_pieces(entry) if is_text else None


def _word_pieces(entry: bytes) -> bytes | None:
    return None if is_added_to_word_pieces(entry) else text_of_word_pieces(entry)
