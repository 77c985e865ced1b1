"""Compressed files, known by their first bytes; what they unfold to has a bound."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

import numpy as np

from torch_warmstart.errors import VocabularyError
from torch_warmstart.storage import BZIP2, GZIP, XZ, ZSTD, Bytes

_MOST_TIMES = 100  # how much larger than the file its content may be, beyond the first bytes
_ALWAYS = 64 << 20  # bytes that any file may unfold to
_PIECE = 1 << 20


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's own, with the attributes of the other two."""

    def __init__(self) -> None:
        self._of = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._of.eof

    @property
    def unused_data(self) -> bytes:
        return self._of.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._of.decompress(data, max_length)


_STREAMS: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (GZIP, _Gzip),
    (BZIP2, bz2.BZ2Decompressor),
    (XZ, lzma.LZMADecompressor),
)


def decompressed(raw: Bytes, url: str) -> Bytes:
    """The content of a compressed file; any other as it is.

    Raises VocabularyError: it is damaged, or unfolds to more than a hundred times its size.
    """
    head = raw[:8].tobytes()
    limit = max(_ALWAYS, _MOST_TIMES * len(raw))
    try:
        if head.startswith(ZSTD):
            return _unfold_zstd(raw, limit, url)
        for magic, make in _STREAMS:
            if head.startswith(magic):
                return _unfold(raw, make, limit, url)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, MemoryError) as error:
        if isinstance(error, VocabularyError):
            raise
        raise VocabularyError(f"{url} is compressed and damaged: {error}.") from error
    return raw


def _unfold(raw: Bytes, make: Callable[[], _Decompressor], limit: int, url: str) -> Bytes:
    """All streams of a file, one behind the other, as `cat a.gz b.gz` makes them."""
    found: list[bytes] = []
    total, rest = 0, raw.tobytes()
    while rest:
        stream = make()
        while not stream.eof:
            piece = stream.decompress(rest, limit - total + 1)
            total += len(piece)
            _check_size(total, limit, url)
            found.append(piece)
            if not stream.eof and not piece:
                raise EOFError("it ends too early")
            rest = _left(stream)
        rest = stream.unused_data.lstrip(b"\0")
    return np.frombuffer(b"".join(found), dtype=np.uint8)


def _left(stream: _Decompressor) -> bytes:
    """What of the input has to be given again, where the output was cut."""
    of = getattr(stream, "_of", None)
    return b"" if of is None else bytes(of.unconsumed_tail)


def _unfold_zstd(raw: Bytes, limit: int, url: str) -> Bytes:
    from cramjam import DecompressionError, zstd

    size = min(limit, max(_PIECE, 8 * len(raw)))
    while True:
        room = np.empty(size, dtype=np.uint8)
        try:
            return room[: zstd.decompress_into(raw.tobytes(), room.data)]
        except DecompressionError as error:
            if "whole buffer" not in str(error):  # which is what it says of too little room
                raise ValueError(error) from error
        _check_size(size + 1, limit, url)
        size = min(limit, 4 * size)


def _check_size(size: int, limit: int, url: str) -> None:
    if size > limit:
        raise VocabularyError(
            f"{url} is compressed and unfolds to more than {limit:,} bytes, a hundred times its "
            f"size or {_ALWAYS:,}: no vocabulary does. Decompress it first, if it can be trusted."
        )
