"""What is done to a seed: random damage to its bytes, and lies told in its own language.

The lies keep what surrounds them honest. A mutated table gets new checksums, a mutated zip member a
new directory, so that a reader meets the lie and not just the checksum in front of it.
"""

from __future__ import annotations

import io
import json
import pickletools
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import bundle_writer as bw
import cramjam

from fuzz.cases import Case

Mutator = Callable[[Random, Case, Sequence[Case]], Case | None]  # None: does not apply
Records = list[tuple[bytes, bytes]]
Field = tuple[int, int, Any]  # number, wire type, int or bytes

_GRAPH_KEY = b"_CHECKPOINTABLE_OBJECT_GRAPH"
_MAGIC = bw.TABLE_MAGIC.to_bytes(8, "little")

INTERESTING = (
    *(0, 1, 2, 3, 7, 8, 16, 64, 100, 127, 128, 255, 256, 1000, 32767, 65535, 65536),
    *(1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 61),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2, (1 << 64) - 8),
)


# ---- Bytes -----------------------------------------------------------------------------------


def damage(rng: Random, data: bytes) -> bytes:
    """A little random damage, one to four times."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _damage_once(rng, out)
    return bytes(out)


def _damage_once(rng: Random, out: bytearray) -> None:
    at = rng.randrange(len(out) + 1)
    size = rng.choice((1, 1, 2, 4, 8, 16, 64))
    kind = rng.choice(("flip", "set", "insert", "delete", "repeat", "cut", "number", "zero"))
    if kind == "flip" and at < len(out):
        out[at] ^= 1 << rng.randrange(8)
    elif kind == "set" and at < len(out):
        out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == "insert":
        out[at:at] = rng.randbytes(size)
    elif kind == "delete":
        del out[at : at + size]
    elif kind == "repeat":
        out[at:at] = out[at : at + size] * rng.choice((1, 1, 2, 50))
    elif kind == "cut":
        del out[at:]
    elif kind == "number":
        width = rng.choice((1, 2, 4, 8))
        number = rng.choice(INTERESTING) & ((1 << 8 * width) - 1)
        out[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
    else:
        out[at : at + size] = bytes(len(out[at : at + size]))


def damage_file(rng: Random, case: Case, _: Sequence[Case]) -> Case:
    """Damages one file. Where checksums cover everything, no value may change."""
    path = rng.choice(sorted(case.files))
    damaged = case.with_file(path, damage(rng, case.files[path]), "damaged")
    return replace(damaged, same=None) if case.format == "tf-v2" else damaged


def splice(rng: Random, case: Case, others: Sequence[Case]) -> Case:
    """The beginning of one file and the end of another."""
    path, other = rng.choice(sorted(case.files)), rng.choice(others)
    left, right = case.files[path], other.files[rng.choice(sorted(other.files))]
    spliced = left[: rng.randrange(len(left) + 1)] + right[rng.randrange(len(right) + 1) :]
    return case.with_file(path, spliced, f"spliced with {other.seed}")


def drop_file(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """A file too few, or an empty one."""
    if len(case.files) < 2:
        return None
    path = rng.choice(sorted(case.files))
    if rng.random() < 0.5:
        return case.with_file(path, b"", "emptied")
    files = {name: data for name, data in case.files.items() if name != path}
    return replace(case, files=files, note=f"{path}: removed", same=frozenset())


# ---- Protobuf --------------------------------------------------------------------------------


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and the position after it; ValueError if there is none."""
    result = shift = 0
    while shift < 70:
        if at >= len(data):
            break
        result |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return result, at
    raise ValueError("no varint")


def read_message(data: bytes) -> list[Field]:
    """The fields of a message; ValueError if it is none."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        value: Any
        if wire_type == 0:
            value, at = read_varint(data, at)
        elif wire_type in (1, 2, 5):
            size, at = read_varint(data, at) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError("no message")
        if at > len(data) or not number:
            raise ValueError("no message")
        fields.append((number, wire_type, value))
    return fields


def write_message(fields: Sequence[Field]) -> bytes:
    """The inverse of `read_message`."""
    out = bytearray()
    for number, wire_type, value in fields:
        out += bw.varint(number << 3 | wire_type)
        if wire_type == 0:
            out += bw.varint(value)
            continue
        out += (bw.varint(len(value)) if wire_type == 2 else b"") + value
    return bytes(out)


def lie_in_message(rng: Random, data: bytes, depth: int = 0) -> bytes:
    """Changes one field, here or in a submessage."""
    try:
        fields = read_message(data)
    except ValueError:
        return damage(rng, data)
    if not fields:
        return data + rng.choice((b"\x0a\x00", b"\x08\x01", b"\x3a\x00", b"\x12\x02\x08\x05"))
    at = rng.randrange(len(fields))
    number, wire_type, value = fields[at]
    kind = rng.choice(("value", "value", "value", "value", "drop", "again", "number", "swap"))
    if kind == "drop":
        del fields[at]
    elif kind == "again":
        fields[at:at] = [fields[at]] * rng.choice((1, 2, 300))
    elif kind == "number":
        fields[at] = (rng.randrange(1, 9), wire_type, value)
    elif kind == "swap":
        other = rng.randrange(len(fields))
        fields[at], fields[other] = fields[other], fields[at]
    else:
        fields[at] = (number, wire_type, _lying_value(rng, wire_type, value, depth))
    return write_message(fields)


def _lying_value(rng: Random, wire_type: int, value: Any, depth: int) -> Any:
    if wire_type == 0:
        near = [value + step for step in (-1, 1) if value + step >= 0]
        return rng.choice((*INTERESTING, *near, value ^ 1 << rng.randrange(64)))
    if wire_type == 2 and depth < 6 and rng.random() < 0.9:
        return lie_in_message(rng, value, depth + 1)
    if wire_type == 2:
        return rng.choice((b"", b"\xff", value * 2, value + b"\0", b"x" * 5000))
    return rng.randbytes(len(value))


# ---- Tables ----------------------------------------------------------------------------------


def _table_files(case: Case) -> list[str]:
    return sorted(path for path, data in case.files.items() if data.endswith(_MAGIC))


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
    if key == _GRAPH_KEY:
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


# ---- JSON: safetensors headers, index files, configurations ----------------------------------


def lie_in_json(rng: Random, value: Any) -> Any:
    """The value with one thing in it changed."""
    inner = _containers(value)
    if not inner or rng.random() < 0.05:
        return _json_scalar(rng)
    place = rng.choice(inner)
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    key = rng.choice(keys)
    kind = rng.choice(("value", "value", "drop", "more", "near"))
    if kind == "drop":
        del place[key]
    elif kind == "more" and isinstance(place, list):
        place.extend([place[key]] * rng.choice((1, 100)))
    elif kind == "more":
        place[rng.choice(("", "__metadata__", "../x", "\0", "k" * 3000))] = place[key]
    elif kind == "near" and isinstance(place[key], int):
        place[key] += rng.choice((-1, 1, -4, 4))
    else:
        place[key] = _json_scalar(rng)
    return value


def _containers(value: Any) -> list[Any]:
    """Every list and object in a value that has something in it."""
    if not isinstance(value, dict | list):
        return []
    children = value.values() if isinstance(value, dict) else value
    inner = [found for child in children for found in _containers(child)]
    return [value, *inner] if value else inner


def _json_scalar(rng: Random) -> Any:
    odd = (None, True, "", "../x", "/etc/hostname", "F32", "F4", [], {}, -1, 1.5, float("nan"))
    return rng.choice((*odd, *INTERESTING, 1 << 80, "x" * 3000, [[]], [-1, 1]))


def _lying_json_text(rng: Random, text: bytes) -> bytes:
    """A JSON text that lies, or is none."""
    kind = rng.choice(("value", "value", "value", "deep", "twice", "bytes", "digits"))
    try:
        value = json.loads(text)
    except ValueError:
        return damage(rng, text)
    if kind == "value":
        return json.dumps(lie_in_json(rng, value)).encode()
    if kind == "deep":
        depth = rng.choice((10, 200, 2000, 100_000))
        deep = rng.choice((b"[", b'{"a":')) * depth
        return text[:1] + b'"deep":' + deep + rng.choice((b"", text[1:]))
    if kind == "twice":
        return text[:-1] + b"," + text[1:]
    if kind == "digits":
        return text.replace(b"0", b"9" * rng.choice((30, 5000)), 1)
    return damage(rng, text)


def lie_in_header(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """The JSON header of a safetensors file, with an honest length (or not)."""
    paths = sorted(path for path in case.files if path.endswith(".safetensors"))
    if not paths:
        return None
    path = rng.choice(paths)
    data = case.files[path]
    size = int.from_bytes(data[:8], "little")
    header = _lying_json_text(rng, data[8 : 8 + size].rstrip())
    length = rng.choice((len(header),) * 6 + (rng.choice(INTERESTING), len(header) - 1))
    lied = (length & ((1 << 64) - 1)).to_bytes(8, "little") + header + data[8 + size :]
    return case.with_file(path, lied, "lies in its header")


def lie_in_json_file(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """A `.json` file of a folder."""
    paths = sorted(path for path in case.files if path.endswith(".json"))
    if not paths:
        return None
    path = rng.choice(paths)
    return case.with_file(path, _lying_json_text(rng, case.files[path]), "lies")


# ---- Zip files: torch, npz, keras ------------------------------------------------------------


def lie_in_zip(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """A zip file with one member changed, packed again under an honest directory."""
    paths = sorted(path for path, data in case.files.items() if data[:4] == b"PK\3\4")
    if not paths:
        return None
    path = rng.choice(paths)
    members = _members(case.files[path])
    name = rng.choice(sorted(members))
    kind = rng.choice(("content", "content", "content", "content", "drop", "name", "twice", "pack"))
    packing = zipfile.ZIP_STORED
    extra: list[tuple[str, bytes]] = []
    if kind == "content":
        members[name] = _lying_member(rng, name, members[name])
    elif kind == "drop":
        del members[name]
    elif kind == "name":
        odd = ("../" + name, "/" + name, name + "/", name.upper(), "\\" + name, "x" * 3000)
        members[rng.choice(odd)] = members.pop(name)
    elif kind == "twice":
        extra = [(name, damage(rng, members[name]))]
    else:
        packing = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        if rng.random() < 0.5:
            members[name] += bytes(1 << 20)
    packed = _packed([*members.items(), *extra], packing)
    return case.with_file(path, packed, f"member {name!r}: {kind}")


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _packed(members: Sequence[tuple[str, bytes]], packing: int) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", packing) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def _lying_member(rng: Random, name: str, data: bytes) -> bytes:
    if name.endswith(".pkl") or name.endswith("/.metadata"):
        return lie_in_pickle(rng, data)
    if name.endswith(".npy"):
        return _lying_npy(rng, data)
    if name.endswith(".json"):
        return _lying_json_text(rng, data)
    return damage(rng, data) if data else b"\0"


# ---- Pickle ----------------------------------------------------------------------------------

_GADGETS = (
    b"cos\nsystem\n(S'true'\ntR",
    b"cbuiltins\neval\n(S'1'\ntR",
    b"cbuiltins\nbytearray\n(I20000000000\ntR",
    b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R",
    b"ctorch\nSize\n((I-1\ntt\x85R",
    b"ccollections\nOrderedDict\n)R",
    b"ccollections\nCounter\n(S'aab'\ntR",
    b"c_codecs\nencode\n(S'x'\nS'bz2'\ntR",
    b"ctorch\nload\n(S'/etc/hostname'\ntR",
    b"ctorch._utils\n_rebuild_tensor_v2\n(NI0\n(I1000000000\nt(I0\nt\x89NtR",
    b"ctorch\nDoubleStorage\n(I3000000000\ntR",
    b"ctorch\ndevice\n(S'cuda:99'\ntR",
    b"I" + b"9" * 4000 + b"\n",
    b"]" * 3000 + b"a" * 2999,
    b"}" * 3000,
    b"\x8b\xff\xff\xff\x7f",  # LONG4 of 2 GiB
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",  # BINBYTES8
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",  # FRAME
    b"r\xff\xff\xff\x7f",  # LONG_BINPUT
    b"j\xff\xff\xff\x7f",  # LONG_BINGET
    b"\x82\x01",  # EXT1
    b"P1\n",
    b"02",  # POP, DUP
)


def lie_in_pickle(rng: Random, data: bytes) -> bytes:
    """A pickle with another number, a gadget, or an instruction too many or too few."""
    spans = _instructions(data)
    if not spans:
        return damage(rng, data)
    start, stop, _ = rng.choice(spans)
    kind = rng.choice(("number", "number", "gadget", "drop", "again", "damage"))
    numbers = [span for span in spans if span[2] in ("BININT1", "BININT2", "BININT", "LONG1")]
    if kind == "number" and numbers:
        start, stop, _ = rng.choice(numbers)
        return data[:start] + _pickled_number(rng) + data[stop:]
    if kind == "gadget":
        return data[:start] + rng.choice(_GADGETS) + data[start:]
    if kind == "drop":
        return data[:start] + data[stop:]
    if kind == "again":
        return data[:start] + data[start:stop] * rng.choice((2, 3, 1000)) + data[stop:]
    return damage(rng, data)


def _instructions(data: bytes) -> list[tuple[int, int, str]]:
    """Where each instruction begins and ends, as far as the first pickle can be followed."""
    try:
        listed = [(at or 0, opcode.name) for opcode, _, at in pickletools.genops(data)]
    except (ValueError, IndexError):
        return []
    stops = [at for at, _ in listed[1:]] + [len(data)]
    return [(at, stop, name) for (at, name), stop in zip(listed, stops, strict=True)][:-1]


def _pickled_number(rng: Random) -> bytes:
    number = rng.choice((*INTERESTING, -1, -8, 3, 5, 6, 1 << 70))
    packed = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(packed)]) + packed


def lie_in_pickle_file(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """A file that is a pickle, or several one after the other."""
    paths = sorted(path for path, data in case.files.items() if data[:1] == b"\x80")
    if not paths:
        return None
    path = rng.choice(paths)
    data = case.files[path]
    starts = [at for at in range(len(data) - 1) if data[at] == 0x80 and data[at + 1] in (2, 3, 4)]
    at = rng.choice(starts)
    lied = data[:at] + lie_in_pickle(rng, data[at:])
    return case.with_file(path, lied, f"lies in the pickle at {at}")


# ---- numpy -----------------------------------------------------------------------------------

_NPY_LIES = (
    (b"'shape': (", b"'shape': (1000000000, "),
    (b"'shape': (", b"'shape': (-1, "),
    (b"'shape': (", b"'shape': (0, "),
    (b"'descr': '<f4'", b"'descr': '|O'"),
    (b"'descr': '<f4'", b"'descr': [('a', '<f4'), ('b', '|O')]"),
    (b"'descr': '<f4'", b"'descr': '<f%d'" % (1 << 40)),
    (b"'descr': '<f4'", b"'descr': '<U1000000000'"),
    (b"'descr': '<f4'", b"'descr': '<M8[s]'"),
    (b"'fortran_order': False", b"'fortran_order': True"),
    (b"'fortran_order': False", b"'fortran_order': " + b"(" * 90 + b")" * 90),
    (b"'fortran_order': False", b"'fortran_order': __import__('os').system('true')"),
    (b"}", b"}" + b" " * 70_000),
)


def _lying_npy(rng: Random, data: bytes) -> bytes:
    if rng.random() < 0.3 or data[:6] != b"\x93NUMPY":
        return damage(rng, data)
    size = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + size].replace(*rng.choice(_NPY_LIES), 1)
    if len(header) >> 16:
        return b"\x93NUMPY\2\0" + len(header).to_bytes(4, "little") + header + data[10 + size :]
    return data[:8] + len(header).to_bytes(2, "little") + header + data[10 + size :]


def lie_in_npy(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """The header of a `.npy` file."""
    paths = sorted(path for path in case.files if path.endswith(".npy"))
    if not paths:
        return None
    return case.with_file(paths[0], _lying_npy(rng, case.files[paths[0]]), "lies in its header")


# ---- Text ------------------------------------------------------------------------------------

_TOKENS = (b"", b" ", b"\t", b"nan", b"inf", b"1e999", b"-", b"0x10", b"1_0", b"99999999999", b"x")


def lie_in_text(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """Other tokens and lines in a text file."""
    paths = sorted(path for path in case.files if path.endswith((".txt", ".vec", ".bin")))
    if not paths:
        return None
    path = paths[0]
    lines = [line.split(b" ") for line in case.files[path].split(b"\n")]
    line = rng.choice(lines)
    kind = rng.choice(("token", "token", "line", "more"))
    if kind == "token":
        line[rng.randrange(len(line))] = rng.choice((*_TOKENS, rng.randbytes(3)))
    elif kind == "line":
        lines.insert(rng.randrange(len(lines)), rng.choice(([], [b"\r"], [b"\0" * 99], line)))
    else:
        line += [rng.choice(_TOKENS)] * rng.choice((1, 5000))
    return case.with_file(path, b"\n".join(b" ".join(line) for line in lines), f"other {kind}")


# ---- All of them -----------------------------------------------------------------------------

MUTATORS: tuple[Mutator, ...] = (
    damage_file,
    splice,
    drop_file,
    lie_in_record,
    shuffle_records,
    lie_in_block,
    lie_in_strings,
    lie_in_state,
    lie_in_header,
    lie_in_json_file,
    lie_in_zip,
    lie_in_pickle_file,
    lie_in_npy,
    lie_in_text,
)
_RARE = {splice, drop_file}


def mutate(rng: Random, case: Case, others: Sequence[Case]) -> Case:
    """One mutation of a seed."""
    weights = [1 if mutator in _RARE else 4 for mutator in MUTATORS]
    while True:
        mutator = rng.choices(MUTATORS, weights)[0]
        try:
            mutated = mutator(rng, case, others)
        except (ValueError, IndexError, zipfile.BadZipFile, zlib.error, RecursionError):
            continue  # what could not be read could not be changed
        if mutated is not None:
            return mutated
