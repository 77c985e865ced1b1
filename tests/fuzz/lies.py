"""Lies told in JSON, zip files, pickles, numpy's headers and text."""

from __future__ import annotations

import io
import json
import pickletools
import warnings
import zipfile
from collections.abc import Sequence
from random import Random
from typing import Any

from fuzz.cases import Case
from fuzz.damage import INTERESTING, damage

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
