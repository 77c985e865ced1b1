"""TensorFlow's record files: where the records lie, whole and under their checksums.

    length (8, little-endian)  masked crc of it (4)  data  masked crc of them (4)

A compressed one is blocks, each its compressed length (4, big-endian) and a snappy block.

Sources: tensorflow `core/lib/io/record_writer.cc`; `core/lib/io/snappy/snappy_outputbuffer.cc`.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.tensorflow.wire import crc32c, mask_crc, masked_crc, unsnap
from torch_warmstart.storage import Bytes
from torch_warmstart.values import frozen

Places = npt.NDArray[np.int64]

HEAD, TAIL = 12, 4  # bytes around the data of a record
_LENGTH = struct.Struct("<Q")
_BLOCK_LENGTH = 4
TOGETHER = 8 << 20  # bytes of records that are looked at at once
_FEW = 32  # records for which it does not pay to look at them together
_LONG = 4096  # bytes of a record that is looked at by itself
_POLYNOMIAL = 0x82F63B78  # CRC-32C's, reflected


@frozen(eq=False)
class Records:
    """The records of a file, in order."""

    data: Bytes  # the file's, unpacked
    starts: Places  # of the data of each record
    lengths: Places

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, at: Places, length: int) -> npt.NDArray[np.uint8]:
        """The records of these numbers, all of this length: [len(at), length]."""
        windows = np.lib.stride_tricks.sliding_window_view(self.data, max(length, 1))
        return windows[self.starts[at]][:, :length]

    def by_length(self) -> Iterator[tuple[int, Places]]:
        """The numbers of records, by the length that they share, so many that they fit together."""
        order = np.argsort(self.lengths, kind="stable")
        edges = np.flatnonzero(np.diff(self.lengths[order])) + 1
        for alike in np.split(order, edges):
            if not len(alike):
                continue
            length = int(self.lengths[alike[0]])
            step = max(1, TOGETHER // max(length, 1))
            for first in range(0, len(alike), step):
                yield length, alike[first : first + step]


def unpacked(raw: Bytes, *, only_first: bool = False) -> Bytes:
    """The records' bytes, of a compressed file too; on request of its first block only.

    Raises MalformedError: it begins neither with a record nor with a compressed one.
    """
    if not len(raw) or _begins_with_record(raw):
        return raw
    blocks = _blocks(raw)
    first = next(blocks)
    if not _begins_with_record(first):
        raise MalformedError("it does not begin with a record")
    return first if only_first else np.concatenate([first, *blocks])


def _begins_with_record(raw: Bytes) -> bool:
    """Whether a length stands there, under its checksum."""
    if len(raw) < HEAD + TAIL:
        return False
    return masked_crc(raw[:8]) == int.from_bytes(raw[8:HEAD].tobytes(), "little")


def _blocks(raw: Bytes) -> Iterator[Bytes]:
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + _BLOCK_LENGTH].tobytes(), "big")
        at += _BLOCK_LENGTH
        if not 0 < size <= len(raw) - at:
            raise MalformedError(f"a compressed block claims {size:,} bytes of {len(raw) - at:,}")
        yield np.frombuffer(unsnap(raw[at : at + size].tobytes()), np.uint8)
        at += size


def records_in(data: Bytes, *, verify: bool) -> Records:
    """The records that bytes are made of.

    Raises MalformedError: one runs past the end, or fails its checksum.
    """
    starts, lengths = _places(data)
    found = Records(data, starts, lengths)
    if verify:
        _check(found)
    return found


def _places(data: Bytes) -> tuple[Places, Places]:
    """Where records begin, from one to the next; runs of one length are found at once."""
    size, at, before, view = len(data), 0, -1, data.data
    starts: list[Places] = []
    lengths: list[tuple[int, int]] = []
    while at < size:
        if size - at < HEAD + TAIL:
            raise MalformedError(f"it ends within the head of a record, at byte {at:,}")
        (length,) = _LENGTH.unpack_from(view, at)
        step = length + HEAD + TAIL
        if step > size - at:
            raise MalformedError(
                f"the record at byte {at:,} claims {length:,} bytes, {size - at:,} are left"
            )
        count = _alike(data, at, step) if length == before else 1
        starts.append(np.arange(at + HEAD, at + HEAD + count * step, step, dtype=np.int64))
        lengths.append((length, count))
        at, before = at + count * step, length
    if not starts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    values, counts = np.array(lengths, np.int64).T
    return np.concatenate(starts), np.repeat(values, counts)


def _alike(data: Bytes, at: int, step: int) -> int:
    """How many records of one length follow one another, this one included."""
    most = (len(data) - at) // step
    count, ahead = 1, 1
    head = data[at : at + 8]
    while count < most:
        ahead = min(2 * ahead, most - count)
        places = at + step * np.arange(count, count + ahead)
        differs = (data[places[:, None] + np.arange(8)] != head).any(1)
        if differs.any():
            return count + int(differs.argmax())
        count += ahead
    return count


# -- checksums -------------------------------------------------------------------------------------


def _check(records: Records) -> None:
    """Compares every checksum; MalformedError names the first record that fails in its group."""
    for length, at in records.by_length():
        framed = Records(records.data, records.starts - HEAD, records.lengths)
        rows = framed.rows(at, length + HEAD + TAIL)
        heads = np.ascontiguousarray(rows[:, 8:HEAD]).view("<u4")[:, 0]
        tails = np.ascontiguousarray(rows[:, HEAD + length :]).view("<u4")[:, 0]
        wrong = heads != np.uint32(masked_crc(rows[0, :8]))  # equal lengths, equal bytes
        wrong |= tails != _masked_crcs(rows[:, HEAD : HEAD + length])
        if wrong.any():
            number = int(at[wrong.argmax()])
            raise MalformedError(f"record {number:,} fails its checksum")


def _masked_crcs(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The masked CRC-32C of each row: [rows]."""
    if len(rows) < _FEW or rows.shape[1] > _LONG:
        return np.array([mask_crc(crc32c(np.ascontiguousarray(row))) for row in rows], np.uint32)
    return mask_crc(_crcs(rows).astype(np.uint64)).astype(np.uint32)


def _crcs(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Eight bytes of all rows at a time, by tables of what each of the eight does to the rest."""
    tables = _tables()
    crcs = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    whole = rows.shape[1] & ~7
    columns = np.ascontiguousarray(rows.T)
    for first in range(0, whole, 8):
        eight = [columns[first + place] for place in range(8)]
        for place in range(4):
            shifted = crcs >> np.uint32(8 * place)
            eight[place] = eight[place] ^ shifted.astype(np.uint8)
        crcs = tables[7][eight[0]]
        for place in range(1, 8):
            crcs ^= tables[7 - place][eight[place]]
    for column in columns[whole:]:
        crcs = tables[0][column ^ crcs.astype(np.uint8)] ^ (crcs >> np.uint32(8))
    return ~crcs


@functools.cache
def _tables() -> list[npt.NDArray[np.uint32]]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    tables = [table.astype(np.uint32)]
    for _ in range(7):
        last = tables[-1]
        tables.append(tables[0][last & 0xFF] ^ (last >> np.uint32(8)))
    return tables
