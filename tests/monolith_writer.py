"""Writes Monolith's tables, by its sources; nothing of torch_warmstart is used.

Records: tensorflow core/lib/io/record_writer.cc. EntryDump: monolith runtime/hash_table/
embedding_hash_table.proto and optimizer/optimizer.proto, fields in the order of their numbers, as
protobuf writes them; `repeated float` of proto2 is not packed. Names: runtime/ops/file_utils.cc.
Several tables in a file: runtime/ops/multi_hash_table_save_restore_ops.cc.
"""

from __future__ import annotations

import struct

OPTIMIZERS = {"adagrad": 1, "sgd": 2, "ftrl": 3, "adam": 7, "group_adagrad": 15}


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data):
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def varint(value):
    value %= 1 << 64
    found = b""
    while value >= 128:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def message(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def floats(number, values):
    return b"".join(varint(number << 3 | 5) + struct.pack("<f", value) for value in values)


def optimizer(kind, slots):
    """A SingleOptimizerDump; `slots` maps a field's number to floats, or to an int."""
    inner = b""
    for number, values in sorted(slots.items()):
        inner += varint(number << 3) + varint(values) if isinstance(values, int) else b""
        inner += floats(number, values) if not isinstance(values, int) else b""
    return message(1, message(OPTIMIZERS[kind], inner))


def entry_dump(id, num, dumps=(), updated=None):
    data = b"\x09" + struct.pack("<q", id) + floats(2, num)
    if dumps:
        data += message(3, b"".join(optimizer(kind, slots) for kind, slots in dumps))
    if updated is not None:
        data += b"\x20" + varint(updated)
    return data


def table(folder, name, entries, shards=1):
    """`entries`: what entry_dump made; shard i has every n-th."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        records = b"".join(record(data) for data in entries[shard::shards])
        (folder / f"{name}-{shard:05d}-of-{shards:05d}").write_bytes(records)
    return str(folder)


def snappy_block(data):
    """As SnappyOutputBuffer frames it, of literals of 60 bytes alone."""
    packed = varint(len(data))
    for first in range(0, len(data), 60):
        piece = data[first : first + 60]
        packed += bytes([len(piece) - 1 << 2]) + piece
    return struct.pack(">I", len(packed)) + packed


def tables(folder, name, tables, shards=1, block=200):
    """Several tables in one file, compressed, and how many records of each there are."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        raw, counts = b"", b""
        for table_name, entries in tables.items():
            mine = entries[shard::shards]
            raw += b"".join(map(record, mine))
            counts += record(message(1, table_name.encode()) + b"\x10" + varint(len(mine)))
        end = f"{shard:05d}-of-{shards:05d}"
        blocks = [snappy_block(raw[first : first + block]) for first in range(0, len(raw), block)]
        (folder / f"{name}-{end}").write_bytes(b"".join(blocks))
        (folder / f"{name}.meta-{end}").write_bytes(counts)
    return str(folder)
