"""How tokenizers write the text of a token: `Ġx`, `▁x`, `##x`, and a byte as `<0xE2>`.

What an entry stands for in a text, once it is known whose way of writing it is: the text, with a
space where a word begins. Who asks knows that: settings that say `forms=`, or a look at all
entries.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

SPACE_OF_BYTES, SPACE_OF_PIECES, INSIDE_A_WORD = "Ġ".encode(), "▁".encode(), b"##"
# By what settings call it (`forms=`), what a tokenizer begins many of its tokens with.
WAYS_OF_WRITING = {
    "sentencepiece": SPACE_OF_PIECES,
    "byte_level": SPACE_OF_BYTES,
    "wordpiece": INSIDE_A_WORD,
}
_SHARE = 0.005  # of the entries looked at that must begin so; few of Chinese do
# `<s>`, `<|end|>`, `[MASK]`, `[/E1]`, BERT's `[unused1]`
_SPECIAL = re.compile(rb"<[^<>\s]+>|\[(?:/?[A-Z_0-9]+|unused_?\d+)\]")
_BRACKETED = re.compile(rb"\[[^\[\]]+\]|<[^<>]+>")
_BYTE = re.compile(rb"<0x([0-9A-Fa-f]{2})>")


def is_special(entry: bytes) -> bool:
    """Whether an entry is written as the special tokens of tokenizers are, which stand for no text.

    Bytes that sentencepiece writes are written so, too: ask `byte_of` first.
    """
    return entry[:1] in (b"<", b"[") and _SPECIAL.fullmatch(entry) is not None


def is_added_to_word_pieces(entry: bytes) -> bool:
    """Whether an entry beside word pieces was added to them, `[MASK]`, `[user]`: no text of theirs.

    What is cut into them is parted at brackets before, so that no piece has more than one letter
    with a bracket.
    """
    return entry[:1] in (b"<", b"[") and _BRACKETED.fullmatch(entry) is not None


def way_of_writing(some: Sequence[bytes], share: float = _SHARE) -> str:
    """Which of WAYS_OF_WRITING some entries of a vocabulary show; "": none of them."""
    begun = {way: sum(e.startswith(begin) for e in some) for way, begin in WAYS_OF_WRITING.items()}
    way = max(begun, key=begun.__getitem__)
    return way if begun[way] > share * len(some) else ""


def byte_of(entry: bytes) -> bytes | None:
    """The byte that sentencepiece writes as `<0xE2>`; None: the entry is something else."""
    found = _BYTE.fullmatch(entry)
    return None if found is None else bytes.fromhex(found[1].decode())


def text_of_bytes(entry: bytes) -> bytes:
    """GPT-2's: each byte is written as a letter that can be seen; a token that was added is not."""
    try:
        return bytes(map(_letters().__getitem__, entry.decode()))
    except (KeyError, UnicodeDecodeError):
        return entry


def text_of_pieces(entry: bytes) -> bytes:
    """Sentencepiece's: `▁` for a space."""
    byte = byte_of(entry)
    return entry.replace(SPACE_OF_PIECES, b" ") if byte is None else byte


def text_of_word_pieces(entry: bytes) -> bytes:
    """WordPiece's: `##` where no word begins; alone it is the word that it spells."""
    if entry.startswith(INSIDE_A_WORD) and entry != INSIDE_A_WORD:
        return entry[len(INSIDE_A_WORD) :]
    return b" " + entry


@functools.cache
def _letters() -> dict[str, int]:
    """The byte that a letter of byte-level tokens stands for.

    Bytes that are printable stand for themselves; the others, in order, are the letters from 256.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    own = {chr(byte): byte for byte in printable}
    return own | {chr(256 + at): byte for at, byte in enumerate(others)}
