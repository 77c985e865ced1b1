"""The `checkpoint` state file: which checkpoint of a directory is the latest, as protobuf text.

Source: tensorflow `python/training/checkpoint_state.proto`; what the text format allows follows
protobuf's text format specification (comments, quotes, escapes, separators).
"""

from __future__ import annotations

import re

from torch_warmstart.errors import CorruptCheckpointError

_STRING_FIELDS = {"model_checkpoint_path", "all_model_checkpoint_paths"}
_NUMBER_FIELDS = {"all_model_checkpoint_timestamps", "last_preserved_timestamp"}
_SPACE = re.compile(r"[\s;,]+|#[^\n]*")
_NAME = re.compile(r"(\w+)\s*:")
_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"|' + r"'((?:[^'\\\n]|\\.)*)'")
_NUMBER = re.compile(r"[-+.\w]+")
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|.)", re.DOTALL)
_LETTERS = {
    b"n": b"\n",
    b"t": b"\t",
    b"r": b"\r",
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"v": b"\v",
}


def parse_state(text: bytes, url: str) -> tuple[str | None, tuple[str, ...]]:
    """The latest checkpoint's path and all paths, as written; CorruptCheckpointError otherwise."""
    source = text.decode("utf-8", errors="surrogateescape")
    latest: str | None = None
    paths: list[str] = []
    position = _skip(source, 0)
    while position < len(source):
        name, value, position = _read_field(source, position, url)
        if name == "model_checkpoint_path":
            latest = value
        elif name == "all_model_checkpoint_paths":
            paths.append(value)
    return latest or None, tuple(paths)


def _read_field(source: str, position: int, url: str) -> tuple[str, str, int]:
    match = _NAME.match(source, position)
    if match is None or match[1] not in _STRING_FIELDS | _NUMBER_FIELDS:
        raise _unreadable(source, position, url)
    name, position = match[1], _skip(source, match.end())
    if name in _STRING_FIELDS:
        value, position = _read_string(source, position, url)
        return name, value, position
    number = _NUMBER.match(source, position)
    if number is None:
        raise _unreadable(source, position, url)
    return name, number[0], _skip(source, number.end())


def _read_string(source: str, position: int, url: str) -> tuple[str, int]:
    """One or more adjacent quoted strings, which the text format joins."""
    parts: list[str] = []
    while match := _STRING.match(source, position):
        parts.append(match[1] if match[1] is not None else match[2])
        position = _skip(source, match.end())
    if not parts:
        raise _unreadable(source, position, url)
    raw = "".join(parts).encode("utf-8", errors="surrogateescape")
    return _ESCAPE.sub(_unescape, raw).decode("utf-8", errors="surrogateescape"), position


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[:1] in b"01234567":
        return bytes([int(code, 8) & 0xFF])
    if code[:1] in b"xX" and len(code) > 1:
        return bytes([int(code[1:], 16)])
    return _LETTERS.get(code, code)


def _skip(source: str, position: int) -> int:
    while match := _SPACE.match(source, position):  # one pattern for all would take more memory
        position = match.end()
    return position


def _unreadable(source: str, position: int, url: str) -> CorruptCheckpointError:
    line = source.count("\n", 0, position) + 1
    found = source[position : position + 40].split("\n", maxsplit=1)[0]
    return CorruptCheckpointError(
        f"{url}, line {line}: expected a field of CheckpointState such as "
        f"'model_checkpoint_path: \"model.ckpt-1\"', found {found!r}. Delete this file or name the "
        "checkpoint's prefix instead of its directory."
    )
