"""How vocabularies write the text of a token: `Ġx`, `▁x`, `##x`, or plainly.

Which way a vocabulary has is told from its entries. A token's text is bytes, with a space where a
word begins, so that tokens of different tokenizers can be compared and spelt.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import torch

from torch_warmstart.entries import Entries

Form = Callable[[bytes], bytes | None]  # an entry's text; None: it is no text

_TRIED = 20_000  # entries looked at to tell the form
_SHARE = 0.005  # of them that must show a form
_SPACE_OF_BYTES, _SPACE_OF_PIECES = "Ġ".encode(), "▁".encode()
_BYTE = re.compile(rb"<0x([0-9A-Fa-f]{2})>")
_SPECIAL = re.compile(rb"<[^<>\s]+>|\[[A-Z_0-9]+\]")  # `<s>`, `<|end|>`, `[MASK]`


def form_of(listed: Entries) -> Form:
    """How a vocabulary of text writes its tokens, from all that it lists."""
    step = max(1, len(listed) // _TRIED)
    some = listed.take(torch.arange(0, len(listed), step, device=listed.device))
    tried = [value for value in some.values(slice(None)) if isinstance(value, bytes)]
    shown = {
        _byte_level: sum(_SPACE_OF_BYTES in value for value in tried),
        _pieces: sum(_SPACE_OF_PIECES in value for value in tried),
        _word_pieces: sum(value.startswith(b"##") for value in tried),
    }
    form, count = max(shown.items(), key=lambda pair: pair[1])
    return form if count > _SHARE * len(tried) else _plain


def is_special(entry: bytes) -> bool:
    """Whether an entry is written as the special tokens of tokenizers are."""
    return entry[:1] in (b"<", b"[") and _SPECIAL.fullmatch(entry) is not None


def _plain(entry: bytes) -> bytes | None:
    return None if is_special(entry) else entry


def _byte_level(entry: bytes) -> bytes | None:
    """GPT-2's: each byte is written as a letter that can be seen."""
    if is_special(entry):
        return None
    try:
        return bytes(map(_letters().__getitem__, entry.decode()))
    except (KeyError, UnicodeDecodeError):
        return entry


@functools.cache
def _letters() -> dict[str, int]:
    """The byte that a letter of byte-level tokens stands for.

    Bytes that are printable stand for themselves; the others, in order, are the letters from 256.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    own = {chr(byte): byte for byte in printable}
    return own | {chr(256 + at): byte for at, byte in enumerate(others)}


def _pieces(entry: bytes) -> bytes | None:
    """Sentencepiece's: `▁` for a space, and `<0xE2>` for a byte."""
    byte = _BYTE.fullmatch(entry)
    if byte:
        return bytes.fromhex(byte[1].decode())
    return None if is_special(entry) else entry.replace(_SPACE_OF_PIECES, b" ")


def _word_pieces(entry: bytes) -> bytes | None:
    """WordPiece's: `##` where no word begins."""
    if is_special(entry):
        return None
    return entry[2:] if entry.startswith(b"##") else b" " + entry
