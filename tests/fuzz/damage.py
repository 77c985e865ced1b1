"""Random damage to bytes and to protobuf messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import bundle_writer as bw

from fuzz.cases import Case

Mutator = Callable[[Random, Case, Sequence[Case]], Case | None]  # None: does not apply
Records = list[tuple[bytes, bytes]]
Field = tuple[int, int, Any]  # number, wire type, int or bytes

GRAPH_KEY = b"_CHECKPOINTABLE_OBJECT_GRAPH"
MAGIC = bw.TABLE_MAGIC.to_bytes(8, "little")

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
