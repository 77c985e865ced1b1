"""Messages in the words of the command line.

A message is made where nobody knows who asked, and advises a call, an argument, or a field of the
settings. Of the command that was run some of these are options, and the fields are lines of its
settings file.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import re
import shlex
from collections.abc import Collection

from torch_warmstart.errors import SettingsError, printable
from torch_warmstart.storage import REPLACE

_CALLS = (
    (re.compile(r"\bsuggest_names\(\)"), "`torch-warmstart suggest`"),
    (re.compile(r"\blist_variables\(\)"), "`torch-warmstart inspect`"),
    (re.compile(r"\bVocabulary\.load\(\.\.\., ([^()]*)\)"), r"\1"),
    (
        re.compile(r"\bWarmStartSettings needs ckpt_to_initialize_from\."),
        "it names no checkpoint. Write ckpt_to_initialize_from there, or URL behind MODEL.",
    ),
)
# A text as Python writes it: of a name out of a file, whatever is in it.
_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
# What a message says, the name that the parsed options have for it, and what is typed.
_OPTIONS = (
    (re.compile(rf"\b(on_missing|on_mismatch|entry|format)=({_TEXT})"), r"\1", r"--\1 \2"),
    (re.compile(rf"\b(column|key)=({_TEXT}|[^'\",)]+)"), r"\1", r"--\1 \2"),
    (re.compile(r"\b(column|format|key)=(?![\w'\"])"), r"\1", r"--\1"),
    (re.compile(r"(?<![\w./'-])(min_count|expire_after|max_size)(?![\w./'-])"), r"\1", r"--\1"),
    (re.compile(r"(?<!')\bvars_to_warm_start\b(?!['=])"), "vars", "--vars"),
    (re.compile(r"\bverify=False\b"), "verify", "--no-verify"),
    (re.compile(rf"\b{re.escape(REPLACE)}"), "force", "pass --force"),
)
# A field with a text, a list of texts or a table of texts, which TOML has too.
_FIELD = re.compile(
    r"\b(var_name_to_layout|var_name_to_prev_var_name|vars_to_warm_start|entry|on_\w+)="
    rf"({_TEXT}|\[{_TEXT}(?:, {_TEXT})*\]|\{{{_TEXT}: {_TEXT}(?:, {_TEXT}: {_TEXT})*\}})"
)
_TEXT_IN_TOML = re.compile(rf"({_TEXT})(: )?")


def in_options(text: str, known: Collection[str]) -> str:
    """A message in the words of a command, which has options of these parsed names."""
    for pattern, said in _CALLS:
        text = pattern.sub(said, text)
    for pattern, name, typed in _OPTIONS:
        text = pattern.sub(functools.partial(_typed, name=name, typed=typed, known=known), text)
    return _FIELD.sub(_as_toml, text) if "settings" in known else text


def _typed(found: re.Match[str], name: str, typed: str, known: Collection[str]) -> str:
    if found.expand(name) not in known:
        return found[0]
    option, *value = found.expand(typed).split(" ", 1)
    return " ".join([option.replace("_", "-"), *map(_in_a_shell, value)])


def _in_a_shell(written: str) -> str:
    """A text as it is typed; what a terminal would act upon is spelt out as bash and zsh do."""
    text = _read(written)
    if text.isprintable():
        return shlex.quote(text)
    spelt = printable(text.replace("\\", r"\\").replace("'", r"\'"))
    return f"$'{spelt}'"


def _read(written: str) -> str:
    """What Python would make of it; where no quotes are around it, itself."""
    if not re.fullmatch(_TEXT, written):
        return written
    try:
        return str(ast.literal_eval(written))
    except (SyntaxError, ValueError):  # cut, or never one
        return written


def _as_toml(found: re.Match[str]) -> str:
    return f"{found[1]} = {_TEXT_IN_TOML.sub(_text_as_toml, found[2])}"


def _text_as_toml(found: re.Match[str]) -> str:
    """As it is, where TOML reads the same."""
    from torch_warmstart.settings import toml_string

    text = found[1]
    if text[0] != "'" or "\\" in text:
        with contextlib.suppress(SettingsError):  # of half a surrogate pair, which TOML cannot say
            text = toml_string(_read(text))
    return text + (" = " if found[2] else "")
