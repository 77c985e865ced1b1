"""TOML as text: read by Python's own parser, written here, since Python writes none."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch_warmstart.errors import SettingsError

# The same package, which became a part of Python in 3.11. Importing it takes a tenth of a second.
_TOML = "tomllib" if sys.version_info >= (3, 11) else "tomli"
_MAX_SIZE = 64 << 20  # bytes; a million rules are less
_BARE = re.compile(r"[A-Za-z0-9_-]+")
LARGEST = 1 << 63  # integers of TOML have 64 bits

Table = Mapping[str, Any]


def read_toml(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """What a file says.

    Args:
        path: A local file.
        what: What it should be, for messages: "rules file".

    Raises:
        SettingsError: it cannot be read, is too large, or no TOML.
    """
    where = os.fspath(path)
    name = os.path.basename(where)
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_SIZE + 1)
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise SettingsError(f"{what.capitalize()} {where} cannot be read: {error}.") from error
    if len(text) > _MAX_SIZE:
        raise SettingsError(f"{where} is no {what}: it is above {_MAX_SIZE:,} bytes.")
    toml = importlib.import_module(_TOML)
    try:
        content: dict[str, Any] = toml.loads(text.decode("utf-8-sig"))  # editors on Windows
    except ValueError as error:  # TOML's, UTF-8's, or that of a number of too many digits
        raise SettingsError(f"{name} is no TOML file: {error}.") from error
    except RecursionError as error:
        raise SettingsError(f"{name} is no {what}: its values are nested too deep.") from error
    return content


def toml_lines(table: Table, path: Sequence[str] = ()) -> Iterator[str]:
    """A table as lines: its plain values, then its tables, each below a heading.

    Raises SettingsError for an integer or a text that TOML cannot say.
    """
    for key, value in table.items():
        if not isinstance(value, Mapping) and not _is_of_tables(value):
            yield f"{_key(key)} = {toml_value(value)}"
    for key, value in table.items():
        inner = (*path, key)
        heading = ".".join(map(_key, inner))
        if isinstance(value, Mapping):
            plain = [v for v in value.values() if not isinstance(v, Mapping)]
            yield from ["", f"[{heading}]"] if plain or not value else []
            yield from toml_lines(value, inner)
        elif _is_of_tables(value):
            for each in value:
                yield from ("", f"[[{heading}]]")
                yield from toml_lines(each, inner)


def _is_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def toml_value(value: Any) -> str:
    """A value in a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    return "[" + ", ".join(map(toml_value, value)) + "]"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else toml_string(key)


def toml_string(text: str) -> str:
    """A TOML string: literal where a backslash would have to be doubled and nothing forbids it."""
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return f'"{toml_escaped(text)}"'


def toml_escaped(text: str) -> str:
    """A text with what a basic string of TOML must not hold spelt out."""
    return "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character in ('"', "\\"):
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        raise SettingsError("A name that is not valid Unicode cannot be written into a rules file.")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
