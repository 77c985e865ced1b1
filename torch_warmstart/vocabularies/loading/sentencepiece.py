"""sentencepiece's `.model` and `.vocab`, by hand: of the model two messages and a few fields.

(sentencepiece `src/sentencepiece_model.proto`; the wire format is protobuf's own.)
"""

from __future__ import annotations

from collections.abc import Iterator

from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import VocabularyError
from torch_warmstart.vocabularies.loading.arrays import from_sequence

_PIECES, _TRAINER = 1, 2  # of ModelProto
_PIECE, _TYPE = 1, 3  # of SentencePiece
_NORMAL, _UNKNOWN = 1, 2  # of its types
# Of TrainerSpec: which piece is what, and what that is without the field.
_IDS = {40: ("unk_token", 0), 41: ("bos_token", 1), 42: ("eos_token", 2), 43: ("pad_token", -1)}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_PIECES = 1 << 24
_NEGATIVE = 1 << 63

Field = tuple[int, int, int | bytes]  # number, wire type, value


class _NoModelError(ValueError):
    """Bytes that are no such message."""


def read_model(raw: bytes, url: str) -> Vocabulary:
    """The pieces of a model; VocabularyError if it is none."""
    try:
        return _read(raw, url)
    except _NoModelError as error:
        raise VocabularyError(f"{url} is no model of sentencepiece's: {error}.") from error


def is_model(raw: bytes) -> bool:
    """Whether it is a model of sentencepiece's: it has a piece for what is unknown."""
    if raw[:1] != b"\x0a":
        return False
    try:
        pieces = [value for number, _, value in _fields(raw) if number == _PIECES]
        return any(_piece_of(piece)[1] == _UNKNOWN for piece in pieces)
    except _NoModelError:
        return False


def _read(raw: bytes, url: str) -> Vocabulary:
    pieces: list[bytes] = []
    ids = {number: start for number, (_, start) in _IDS.items()}
    for number, kind, value in _fields(raw):
        if number == _PIECES:
            pieces.append(_piece_of(value)[0])
        elif number == _TRAINER and isinstance(value, bytes):
            for inner, wire, held in _fields(value):
                if inner in ids and wire == _VARINT and isinstance(held, int):
                    ids[inner] = held - 2 * _NEGATIVE if held >= _NEGATIVE else held
        del kind
        if len(pieces) > _MOST_PIECES:
            raise _NoModelError("it has too many pieces")
    if not pieces:
        raise _NoModelError("it has no piece")
    roles = {_IDS[number][0]: at for number, at in ids.items() if 0 <= at < len(pieces)}
    special = {name: range(at, at + 1) for name, at in roles.items()}
    found = from_sequence(pieces, url)
    return Vocabulary(found.listed, len(pieces), special=special, is_padded=True)


def _piece_of(message: int | bytes) -> tuple[bytes, int]:
    """A piece's text and type."""
    if not isinstance(message, bytes):
        raise _NoModelError("a piece is no message")
    text, kind = b"", _NORMAL
    for number, wire, value in _fields(message):
        if number == _PIECE and isinstance(value, bytes):
            text = value
        elif number == _TYPE and wire == _VARINT and isinstance(value, int):
            kind = value
    return text, kind


def _fields(raw: bytes) -> Iterator[Field]:
    at, end = 0, len(raw)
    while at < end:
        tag, at = _varint(raw, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(raw, at)
            yield number, wire, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            size, at = _varint(raw, at)
        if size is None or not number or size > end - at:
            raise _NoModelError(f"byte {at} is not what its messages have there")
        yield number, wire, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(raw):
            raise _NoModelError("it ends too early")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _NoModelError(f"byte {at} is not what its messages have there")


def read_vocab(raw: bytes, url: str) -> Vocabulary:
    r"""The first column of a `.vocab`: a piece, a tab and its score in each line."""
    lines = raw.split(b"\n")
    if not lines[-1]:
        lines.pop()
    parts = [line.rpartition(b"\t") for line in lines]
    bad = next((at for at, (_, tab, _) in enumerate(parts) if not tab), None)
    if bad is not None or not parts:
        raise VocabularyError(
            f"{url}: line {(bad or 0) + 1:,} has no tab between a piece and its score, as each "
            "line of sentencepiece's .vocab has."
        )
    found = from_sequence([piece for piece, _, _ in parts], url)
    return Vocabulary(found.listed, len(parts), is_padded=True)
