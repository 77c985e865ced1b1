r"""How names changed: what `var_name_to_prev_var_name` may hold, as a list of rules.

    {"fc.weight": "old/kernel"}               a variable: its tensor, by key or another name
    {"lstm.weight_ih_l0": ["old/k", "old/r"]} ... or the tensors that it is made of
    {"bert.": "model/bert/"}                  a scope: a scope of the checkpoint, with its leaves
    [(r"blocks\.(\d+)\.(.+)", r"b\1/\2")]     patterns for whole names: what takes their place
    lambda name: name.replace("fc", "old")    a function; None for names that it leaves alone
    NameRules(...)                            all of these together, as a rules file has them
    suggest_names(...)                        the same, those of which it is sure

A variable's own entry counts more than any scope, an inner scope more than one around it, a scope
more than a pattern, a pattern more than those behind it, and any of them more than a function.
This room knows what rules say, not which variables there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal

from torch_warmstart.errors import SettingsError, shown_value

SETTING = "var_name_to_prev_var_name"
Names = str | Sequence[str]
NameFunction = Callable[[str], "Names | None"]
Pattern = tuple[str, str]
Kind = Literal["name", "scope", "pattern", "function"]

_ROOTS = ("", "/", ".")


@dataclass(frozen=True)
class NameRules:
    r"""Rules of all kinds together, for `var_name_to_prev_var_name`.

    Args:
        names: Variable name to its key or keys in the checkpoint; a scope of the model, with a dot
            or slash at its end, to a scope of the checkpoint.
        patterns: Pairs of a pattern for whole names and what takes the name's place.
        layouts: For `var_name_to_layout`, where what stands there itself counts more.
        origin: The file that the rules are from, for messages.
        is_suggested: Whether they were proposed, and nobody has looked at them.

    Raises:
        SettingsError: a rule is malformed.

    Example:
        >>> len(NameRules({"head.": "classifier/"}, [(r"layers\.(\d+)\.(.+)", r"layer_\1/\2")]))
        2
    """

    names: Mapping[str, Names] = field(default_factory=dict)
    patterns: Sequence[Pattern] = ()
    _: KW_ONLY
    layouts: Mapping[str, str] = field(default_factory=dict, repr=False)
    origin: str = field(default="", repr=False)
    is_suggested: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", _checked_names(self.names, self._setting))
        object.__setattr__(self, "patterns", _checked_patterns(self.patterns, self._setting))
        if not isinstance(self.layouts, Mapping):
            raise SettingsError(f"{self._setting}: layouts is a mapping, not {self.layouts!r:.60}.")
        object.__setattr__(self, "layouts", dict(self.layouts))

    @property
    def _setting(self) -> str:
        return f"{self.origin}: {SETTING}" if self.origin else SETTING

    def __len__(self) -> int:
        return len(self.names) + len(self.patterns)

    def __bool__(self) -> bool:
        return bool(len(self))


# What a user may give.
RenameSetting = Mapping[str, Names] | Sequence[Pattern] | NameFunction | NameRules


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, whatever the user wrote it as."""

    kind: Kind
    source: str  # a variable, a scope ("bert." or ""), or a pattern
    target: Names | NameFunction
    text: str  # as the user wrote it, for messages
    setting: str = SETTING  # where it stands, for messages
    is_suggested: bool = False  # proposed, and not looked at

    def __str__(self) -> str:
        return f"{self.setting}: {self.text}"


def checked_renames(value: Any) -> RenameSetting:
    """A copy of what a user gave; SettingsError if it is nothing that can be applied."""
    if value is None:
        return {}
    as_rules = getattr(value, "as_rules", None)  # suggestions, which this room does not know
    if callable(as_rules):
        value = as_rules()
    if isinstance(value, NameRules):
        return value
    if isinstance(value, Mapping):
        return _checked_names(value, SETTING)
    if callable(value):
        function: NameFunction = value
        return function
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _checked_patterns(value, SETTING)
    raise SettingsError(
        f"{SETTING} must be a mapping, a sequence of (pattern, replacement), a function or "
        f"NameRules, not a {type(value).__name__}."
    )


def rules_of(value: RenameSetting | None) -> list[Rule]:
    """What a user gave as rules, in the order in which they were written."""
    if not value:
        return []
    if isinstance(value, NameRules):
        where = f"{SETTING} ({value.origin})" if value.origin else SETTING
        rules = [*_name_rules(value.names, where), *_pattern_rules(value.patterns, where)]
        return [replace(rule, is_suggested=value.is_suggested) for rule in rules]
    if isinstance(value, Mapping):
        return _name_rules(value, SETTING)
    if callable(value):
        return [Rule("function", "", value, "the function")]
    return _pattern_rules(value, SETTING)


def layouts_of(value: RenameSetting) -> Mapping[str, str]:
    """What rules say for `var_name_to_layout`."""
    return value.layouts if isinstance(value, NameRules) else {}


def canonical_scope(scope: str) -> str:
    """A scope of the model as its variables' names begin: "bert.", or "" for the root."""
    return "" if scope in _ROOTS else scope.replace("/", ".")


def is_scope(name: str) -> bool:
    """Whether a name is one of a scope."""
    return name in _ROOTS or name[-1] in "/."


def begin_of(scope: str) -> str:
    """What names in a scope of the checkpoint begin with: "model/bert/", or "" for the root."""
    return "" if scope in _ROOTS else scope


def _name_rules(names: Mapping[str, Names], setting: str) -> list[Rule]:
    return [
        Rule(
            "scope" if is_scope(source) else "name",
            source,
            target,
            f"{{{source!r}: {target!r}}}",
            setting,
        )
        for source, target in names.items()
    ]


def _pattern_rules(patterns: Iterable[Pattern], setting: str) -> list[Rule]:
    return [
        Rule("pattern", pattern, replacement, f"({pattern!r}, {replacement!r})", setting)
        for pattern, replacement in patterns
    ]


def _shown(name: object) -> str:
    """A name, or several, and what stands in the place of one."""
    is_several = isinstance(name, list | tuple | re.Pattern)
    return f"{name!r:.60}" if is_several else shown_value(name)


def _checked_names(names: Mapping[Any, Any], setting: str) -> dict[str, Names]:
    checked: dict[str, Names] = {}
    for source, target in names.items():
        if not (isinstance(source, str) and _are_names([target] if _is_text(target) else target)):
            pairs = " Patterns are a list of pairs, [(pattern, replacement)]."
            raise SettingsError(
                f"{setting} maps variable names (str) to str, or to a list of str; found "
                f"{_shown(source)}: {_shown(target)}.{pairs * isinstance(source, re.Pattern)}"
            )
        if not target and not is_scope(source):
            raise SettingsError(
                f"{setting} maps variable names (str) to str; found {source!r}: {target!r:.60}."
            )
        _check_scopes(source, target, setting)
        checked[source] = target if isinstance(target, str) else list(target)
    return checked


def _are_names(target: object) -> bool:
    return isinstance(target, list | tuple) and bool(target) and all(map(_is_text, target))


def _is_text(name: object) -> bool:
    return isinstance(name, str)


def _check_scopes(source: str, target: Names, setting: str) -> None:
    to_scope = isinstance(target, str) and is_scope(target)
    if is_scope(source) == to_scope:
        return
    one, other = ("first", "second") if is_scope(source) else ("second", "first")
    raise SettingsError(
        f"{setting}: in {{{source!r}: {target!r}}} the {one} is a scope and the {other} is not. A "
        "scope is renamed to a scope, both with a dot or slash at the end ({'bert.': "
        "'model/bert/'}; '/' is the root), and a variable to the key or keys of its tensors."
    )


def _checked_patterns(patterns: Sequence[Any], setting: str) -> tuple[Pattern, ...]:
    checked = []
    for pair in patterns:
        if (
            not isinstance(pair, tuple | list)
            or len(pair) != 2
            or not all(isinstance(text, str) and text for text in pair)
        ):
            raise SettingsError(
                f"{setting}: a sequence consists of pairs of str, (pattern, replacement); found "
                f"{pair!r:.60}."
            )
        pattern, replacement = pair
        _check_pattern(pattern, replacement, setting)
        checked.append((pattern, replacement))
    return tuple(checked)


def _check_pattern(pattern: str, replacement: str, setting: str) -> None:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SettingsError(
            f"{setting}: {pattern!r} is not a regular expression: {error}."
        ) from error
    try:
        compiled.sub(replacement, "")  # reads the replacement whether or not something matches
    except (re.error, IndexError) as error:
        raise SettingsError(
            f"{setting}: {replacement!r} cannot take the place of what {pattern!r} matches: "
            f"{error}."
        ) from error
