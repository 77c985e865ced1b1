r"""Rules for names in a file: a small TOML file that people edit.

    [names]                # a variable of the model: its tensor in the checkpoint, or a list
    "head.weight" = "classifier/kernel"

    [scopes]               # the beginning of names: what they begin with in the checkpoint
    "encoder." = "bert/encoder/"

    [patterns]             # regular expressions for whole names; the first that matches counts
    'blocks\.(\d+)\.(.+)' = 'block_\1/\2'

    [layouts]              # for var_name_to_layout
    "head.weight" = "identity"

What a section holds are rules as in `var_name_to_prev_var_name`, checked in the same way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch_warmstart.errors import SettingsError, did_you_mean, path_of
from torch_warmstart.settings.name_rules import (
    NameRules,
    Names,
    RenameSetting,
    checked_renames,
    is_scope,
)
from torch_warmstart.settings.toml_text import read_toml, toml_escaped, toml_string
from torch_warmstart.storage import whole_file
from torch_warmstart.values import frozen

_SECTIONS = {
    "names": "a variable of the model: its tensor in the checkpoint, or a list",
    "scopes": "the beginning of names: what they begin with in the checkpoint",
    "patterns": "regular expressions for whole names; the first that matches counts",
    "layouts": "for var_name_to_layout",
}
_HEADLINE = (
    "How the model's names differ from the checkpoint's. Every rule that is not commented out must "
    "be used."
)
_WIDTH = 96  # characters of a comment in a line


@frozen
class Line:
    """An entry of a rules file."""

    section: str
    source: str
    target: Names
    remark: str = ""  # a comment above it
    active: bool = True  # otherwise it is commented out


def load_rules(path: str | os.PathLike[str]) -> NameRules:
    """Reads a rules file, for `var_name_to_prev_var_name`.

    Its layouts are at `.layouts`, for `var_name_to_layout`. Whatever a plan has to say of a rule
    names the file.

    Raises:
        SettingsError: the file cannot be read, is no TOML, or has a malformed rule.
    """
    name = os.path.basename(path_of("load_rules: path", path))
    content = read_toml(path, "rules file")
    for section, entries in content.items():
        _check_section(name, section, entries)
    sections = {section: content.get(section, {}) for section in _SECTIONS}
    return NameRules(
        {**sections["names"], **sections["scopes"]},
        tuple(sections["patterns"].items()),
        layouts=sections["layouts"],
        origin=name,
    )


def _check_section(name: str, section: str, entries: Any) -> None:
    if section not in _SECTIONS or not isinstance(entries, Mapping):
        raise SettingsError(
            f"{name} has {section!r}, which is no section of a rules file; they are "
            f"{', '.join(f'[{known}]' for known in _SECTIONS)}.{did_you_mean(section, _SECTIONS)}"
        )
    for source, target in entries.items():
        listed = target if isinstance(target, list) else [target]
        if any(isinstance(value, Mapping | list) for value in listed):
            raise SettingsError(
                f"{name}: [{section}] {source!r} is a table or a list of lists; a rule is a "
                "name or a list of names."
            )
        if section in ("patterns", "layouts") and not isinstance(target, str):
            raise SettingsError(f"{name}: [{section}] {source!r} is a str, not {target!r}.")
        if section in ("names", "scopes") and is_scope(source) != (section == "scopes"):
            raise SettingsError(
                f"{name}: {source!r} is in [{section}]. A scope, with a dot or slash at its end, "
                "belongs in [scopes], and a variable in [names]."
            )


def write_rules(path: str | os.PathLike[str], lines: Iterable[Line]) -> None:
    """Writes a rules file, its sections in their order."""
    listed = list(lines)
    texts = [_comment(_HEADLINE)]
    for section, about in _SECTIONS.items():
        inside = [line for line in listed if line.section == section]
        if inside:
            texts += ["", f"[{section}]  # {about}", *map(_entry, inside)]
    with whole_file(os.fsdecode(path), force=True) as file:
        file.write(("\n".join(texts) + "\n").encode())


def lines_of(renames: RenameSetting) -> list[Line]:
    """The lines of rules as a user gives them; SettingsError if they are a function."""
    rules = checked_renames(renames)
    if not isinstance(rules, NameRules):
        if callable(rules):
            raise SettingsError("A function cannot be written into a rules file.")
        rules = NameRules(rules) if isinstance(rules, Mapping) else NameRules({}, rules)
    names = [
        Line("scopes" if is_scope(source) else "names", source, target)
        for source, target in rules.names.items()
    ]
    patterns = [Line("patterns", pattern, target) for pattern, target in rules.patterns]
    return [*names, *patterns, *(Line("layouts", *pair) for pair in rules.layouts.items())]


# -- TOML ------------------------------------------------------------------------------------------


def _entry(line: Line) -> str:
    target = line.target
    listed = [target] if isinstance(target, str) else target
    value = ", ".join(map(toml_string, listed))
    if listed is target:
        value = f"[{value}]"
    entry = f"{toml_string(line.source)} = {value}"
    remark = _comment(line.remark) if line.remark else ""
    return "\n".join(filter(None, (remark, entry if line.active else f"# {entry}")))


def _comment(text: str) -> str:
    """A text as comments, which hold no control characters."""
    lines = [""]
    for word in text.split():
        shown = word if word.isprintable() else toml_escaped(word)
        if lines[-1] and len(lines[-1]) + len(shown) >= _WIDTH:
            lines.append("")
        lines[-1] += f" {shown}" if lines[-1] else shown
    return "\n".join(f"# {line}" for line in lines)
