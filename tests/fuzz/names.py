"""Hostile names where files name others, or tensors: in state files, JSON and pickles."""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from collections.abc import Sequence
from random import Random
from typing import Any

from fuzz.cases import Case

HOSTILE = (
    "reference://x::http://127.0.0.1:9/ref.json",
    "filecache::http://127.0.0.1:9/m",
    "simplecache::file:///etc/hostname",
    "zip://a::/etc/hostname",
    "http://127.0.0.1:9/m",
    "http:/127.0.0.1:9/m",
    "//127.0.0.1:9/m",
    "file:///etc/hostname",
    "memory://m",
    "data:text/plain,abc",
    "/etc/hostname",
    "C:\\windows\\win.ini",
    "\\\\127.0.0.1\\share\\m",
    "../../../../../../etc/hostname",
    "a/../../b",
    "a//../b",
    "..\\..\\b",
    "..",
    ".",
    "",
    "/",
    "~/m",
    "$HOME/m",
    "%2e%2e/m",
    "m?x=1#y",
    "{{ 1 }}",
    "*",
    "a\0b",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "right\u202eleft\u2066",
    "line\nfeed\r",
    "[bold]markup[/bold]",
    "<script>",
    "9" * 5000,
    "layer_" + "1" * 4400 + ".weight",
    "\ud800",
    "e\u0301" * 50,
    "x" * 70_000,
    "a." * 3000,
    "a/" * 3000,
    "module." * 800 + "weight",
    "_orig_mod." * 800 + "weight",
)


def lie_in_names(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """One name somewhere becomes a hostile one, and everything around it stays as it was."""
    path = rng.choice(sorted(case.files))
    data, name = case.files[path], rng.choice(HOSTILE)
    lied = _renamed(rng, path, data, name)
    return None if lied is None else case.with_file(path, lied, f"{name[:40]!r} as a name")


def _renamed(rng: Random, path: str, data: bytes, name: str) -> bytes | None:
    if path.rpartition("/")[2] == "checkpoint":
        return _in_state(rng, data, name)
    if path.endswith(".json"):
        return _in_json(rng, data, name)
    if path.endswith(".safetensors"):
        size = int.from_bytes(data[:8], "little")
        header = _in_json(rng, data[8 : 8 + size], name)
        return len(header).to_bytes(8, "little") + header + data[8 + size :]
    if data[:4] == b"PK\3\4":
        return _in_zip(rng, data, name)
    return _in_pickle(rng, data, name) if data[:1] == b"\x80" else None


def _in_state(rng: Random, data: bytes, name: str) -> bytes:
    """As text of a protobuf message has it: escaped, or as it is."""
    raw = name.encode(errors="surrogatepass")
    escaped = "".join(f"\\{byte:03o}" for byte in raw).encode()
    line = rng.choice((b"model_checkpoint_path", b"all_model_checkpoint_paths"))
    said = line + b': "' + rng.choice((raw, escaped)) + b'"\n'
    return said if rng.random() < 0.5 else said + data


def _in_json(rng: Random, data: bytes, name: str) -> bytes:
    value = json.loads(data)
    places = [(at, key) for at in _containers(value) for key in _keys(at)]
    at, key = rng.choice(places)
    if isinstance(at, dict) and (rng.random() < 0.5 or not isinstance(at[key], str)):
        at[name] = at.pop(key)
    else:
        at[key] = name
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")


def _containers(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    children = value.values() if isinstance(value, dict) else value
    return [value, *(found for child in children for found in _containers(child))]


def _keys(place: Any) -> list[Any]:
    if isinstance(place, dict):
        return list(place)
    return [at for at, value in enumerate(place) if isinstance(value, str)]


def _in_zip(rng: Random, data: bytes, name: str) -> bytes | None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    chosen = rng.choice(sorted(members))
    lied = _renamed(rng, chosen, members[chosen], name)
    if lied is None:
        return None
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, lied if each == chosen else content)
    return out.getvalue()


def _in_pickle(rng: Random, data: bytes, name: str) -> bytes | None:
    """In place of one of its strings."""
    listed = list(pickletools.genops(data))
    texts = [at for at, (code, _, _) in enumerate(listed) if "UNICODE" in code.name][:-1]
    if not texts:
        return None
    at = rng.choice(texts)
    start, stop = listed[at][2], listed[at + 1][2]
    assert start is not None
    raw = name.encode(errors="surrogatepass")
    return data[:start] + b"X" + len(raw).to_bytes(4, "little") + raw + data[stop:]
