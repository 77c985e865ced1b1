"""Lies told in TensorFlow's tables, strings and state files, under right checksums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import bundle_writer as bw
import cramjam

from fuzz.cases import Case
from fuzz.damage import (
    GRAPH_KEY,
    INTERESTING,
    MAGIC,
    Records,
    damage,
    lie_in_message,
    read_message,
    read_varint,
)

# ---- Tables ----------------------------------------------------------------------------------


def _table_files(case: Case) -> list[str]:
    return sorted(path for path, data in case.files.items() if data.endswith(MAGIC))


def read_table(data: bytes) -> Records:
    """The records of a table, or ValueError; checksums are not looked at."""
    _, at = read_varint(data, len(data) - 48)
    _, at = read_varint(data, at)
    offset, at = read_varint(data, at)
    size, _ = read_varint(data, at)
    records: Records = []
    for _, handle in _read_block(data, offset, size):
        start, at = read_varint(handle, 0)
        length, _ = read_varint(handle, at)
        records += _read_block(data, start, length)
    return records


def _read_block(data: bytes, offset: int, size: int) -> Records:
    block, kind = data[offset : offset + size], data[offset + size]
    if kind:
        block = bytes(cramjam.snappy.decompress_raw(block))
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    records, key, at = [], b"", 0
    while at < end:
        shared, at = read_varint(block, at)
        added, at = read_varint(block, at)
        length, at = read_varint(block, at)
        key = key[:shared] + block[at : at + added]
        records.append((key, block[at + added : at + added + length]))
        at += added + length
    return records


def _rewritten(rng: Random, records: Records) -> bytes:
    return bw.write_table(
        records,
        block_size=rng.choice((1 << 18, 1 << 18, 100, 1)),
        restart_interval=rng.choice((16, 1, 2)),
        compression=rng.choice(("none", "none", "snappy")),
    )


def lie_in_record(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """Changes the message under one key of a table. The other tensors must read as before."""
    for path in _table_files(case):
        records = dict(read_table(case.files[path]))
        key = rng.choice(sorted(records))
        records[key] = lie_in_message(rng, records[key])
        lied = case.with_file(path, _rewritten(rng, sorted(records.items())), f"lie under {key!r}")
        return replace(lied, same=_bystanders(case, key))
    return None


def _bystanders(case: Case, changed: bytes) -> frozenset[str]:
    """Tensors that a change under one key of a V2 index cannot touch."""
    if case.format != "tf-v2" or not changed or changed.startswith(b"\0"):
        return frozenset()  # the header and slices belong to many
    records = dict(read_table(case.files[_table_files(case)[0]]))
    texts = (key.decode("utf-8", "replace") for key in records if key and key != changed)
    return frozenset(text for text in texts if not text.startswith("\0"))


def shuffle_records(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """Keys that are missing, twice, renamed, out of order, or that point at another's value."""
    for path in _table_files(case):
        records = read_table(case.files[path])
        at, other = rng.randrange(len(records)), rng.randrange(len(records))
        key, value = records[at]
        kind = rng.choice(("drop", "twice", "rename", "order", "value", "slice", "long"))
        if kind == "drop":
            del records[at]
        elif kind == "twice":
            records.insert(at, (key, records[other][1]))
        elif kind == "rename":
            records[at] = (damage(rng, key), value)
        elif kind == "order":
            records[at], records[other] = records[other], records[at]
        elif kind == "value":
            records[at] = (key, records[other][1])
        elif kind == "slice":
            extents = [(rng.randrange(3), rng.randrange(3)) for _ in range(rng.randrange(3))]
            records.append((bw.encode_tensor_name_slice(key, extents), value))
        else:
            records[at] = (key + b"k" * 3000, value)
        if rng.random() < 0.7:
            records.sort()
        return case.with_file(path, _rewritten(rng, records), f"records: {kind}")
    return None


def lie_in_block(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """Blocks that lie about lengths, restarts and compression under honest checksums."""
    for path in _table_files(case):
        out = bytearray()
        records = read_table(case.files[path])
        contents = _lying_block(rng, records)
        handles = [(0, _append_block(rng, out, contents))]
        handles.append((len(out), _append_block(rng, out, bw.encode_block([]))))
        last_key = records[-1][0] + b"\xff"
        index = _lying_block(rng, [(last_key, _handle(rng, handles[0]))])
        handles.append((len(out), _append_block(rng, out, index)))
        if rng.random() < 0.2:
            handles[2] = _lying_handle(rng, handles[2])
        out += bw.footer(handles[1], handles[2])
        return case.with_file(path, bytes(out), "lies in its blocks")
    return None


def _lying_block(rng: Random, records: Records) -> bytes:
    out, previous = bytearray(), b""
    for key, value in records:
        shared = len(_common(previous, key))
        sizes = [shared, len(key) - shared, len(value)]
        if rng.random() < 0.5 / len(records):
            at = rng.randrange(3)
            sizes[at] = rng.choice((*INTERESTING, sizes[at] + 1, max(0, sizes[at] - 1)))
        out += b"".join(map(bw.varint, sizes)) + key[shared:] + value
        previous = key
    restarts = rng.choice((1, 1, 1, 1, 0, 2, 1 << 30, (1 << 32) - 1))
    return bytes(out) + bytes(4) + restarts.to_bytes(4, "little")


def _common(left: bytes, right: bytes) -> bytes:
    size = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    return left[: min(len(left), len(right)) if size is None else size]


def _append_block(rng: Random, out: bytearray, contents: bytes) -> int:
    """Appends a block under an honest checksum; returns its size without the trailer."""
    kind = rng.choice((0, 0, 0, 1, 1, 2, 255)) if rng.random() < 0.4 else 0
    if kind == 1:
        contents = _lying_snappy(rng, contents)
    typed = contents + bytes([kind])
    out += typed + bw.masked_crc32c(typed).to_bytes(4, "little")
    return len(contents)


def _lying_snappy(rng: Random, contents: bytes) -> bytes:
    packed = bytes(cramjam.snappy.compress_raw(contents))
    _, at = read_varint(packed, 0)
    kind = rng.choice(("honest", "length", "body", "copies"))
    if kind == "length":
        return bw.varint(rng.choice((*INTERESTING, len(contents) * 60))) + packed[at:]
    if kind == "body":
        return packed[:at] + damage(rng, packed[at:])
    if kind == "copies":  # one literal, then as many copies of 64 bytes of it
        count = rng.choice((1, 100, 5000))
        return bw.varint(1 + 64 * count) + b"\x00A" + b"\xfe\x01\x00" * count
    return packed


def _handle(rng: Random, handle: tuple[int, int]) -> bytes:
    lying = _lying_handle(rng, handle) if rng.random() < 0.2 else handle
    return b"".join(map(bw.varint, lying))


def _lying_handle(rng: Random, handle: tuple[int, int]) -> tuple[int, int]:
    number = rng.choice((*INTERESTING, handle[0] + 1, handle[1] + 1))
    return (number, handle[1]) if rng.random() < 0.5 else (handle[0], number)


# ---- Strings and the object graph of a V2 checkpoint -----------------------------------------


def lie_in_strings(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """Another object graph, or string lengths that lie, under an honest checksum."""
    for path in (path for path in _table_files(case) if path.endswith(".index")):
        records = dict(read_table(case.files[path]))
        strings = [
            key
            for key, value in records.items()
            if key and not key.startswith(b"\0") and _dtype(value) == bw.DType.STRING
        ]
        shards = sorted(name for name in case.files if name.startswith(path[:-5] + "data-00000"))
        if not strings or not shards:
            continue
        key = rng.choice(sorted(strings))
        entry = {number: value for number, _, value in read_message(records[key])}
        data = case.files[shards[0]]
        start, size = entry.get(4, 0), entry.get(5, 0)
        stored, crc = _lying_strings(rng, key, data[start : start + size])
        place = bw.Place(0, len(data), len(stored), crc)
        records[key] = bw.entry_proto(bw.DType.STRING, entry.get(2, b""), place)
        index = _rewritten(rng, sorted(records.items()))
        lied = case.with_file(path, index, f"other strings in {key!r}")
        files = {**lied.files, shards[0]: data + stored}
        return replace(lied, files=files, same=_bystanders(case, key))
    return None


def _dtype(value: bytes) -> int:
    try:
        return next((field for number, _, field in read_message(value) if number == 1), 0)
    except ValueError:
        return 0


def _lying_strings(rng: Random, key: bytes, stored: bytes) -> tuple[bytes, int]:
    if key == GRAPH_KEY:
        size, at = read_varint(stored, 0)
        graph = stored[at + 4 : at + 4 + size]
        for _ in range(rng.choice((1, 1, 3))):
            graph = lie_in_message(rng, graph)
        return bw.encode_strings([graph])
    count = rng.choice((1, 2, 4, 100))
    lengths = b"".join(bw.varint(rng.choice((0, 1, *INTERESTING))) for _ in range(count))
    return lengths + stored[-8:], rng.getrandbits(32)


# ---- State file ------------------------------------------------------------------------------

_STATE_LINES = (
    b'model_checkpoint_path: ""\n',
    b'model_checkpoint_path: "../model.ckpt-7"\n',
    b'model_checkpoint_path: "/nowhere/model.ckpt"\n',  # it may name any path, as in TensorFlow
    b'model_checkpoint_path: "model.ckpt-7\\000"\n',
    b'model_checkpoint_path: "\\777\\xff\\"\n',
    b"model_checkpoint_path: 'a' \"b\" # c\n",
    b'model_checkpoint_path { path: "x" }\n',
    b"last_preserved_timestamp: nan\n",
    b"all_model_checkpoint_timestamps: [1, 2]\n",
    b'model_checkpoint_path: "' + b"\\" * 4001 + b'"\n',
    b'model_checkpoint_path: "' + b"a/" * 3000 + b'"\n',
    b"#" * 5000,
    b"\xff\xfe",
)


def lie_in_state(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """Other lines in the state file."""
    if "checkpoint" not in case.files:
        return None
    lines = case.files["checkpoint"].splitlines(keepends=True)
    for _ in range(rng.choice((1, 1, 3))):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_STATE_LINES))
    return case.with_file("checkpoint", b"".join(lines), "other lines")
