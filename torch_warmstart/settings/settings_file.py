r"""Settings in a file: the fields of `WarmStartSettings` as TOML, under their own names.

    ckpt_to_initialize_from = "model_dir"
    vars_to_warm_start = [".*"]            # false: only variables with a VocabInfo

    [var_name_to_vocab_info."city.weight"]
    new_vocab = "today.txt"
    new_vocab_size = 380
    num_oov_buckets = 2
    old_vocab = "yesterday.txt"
    backup_initializer = {name = "normal_", std = 0.02}

    [var_name_to_vocab_info."genre.weight"]
    new_vocab = "genres.txt"
    old_vocab = {from_checkpoint = "genres_lookup"}

    [var_name_to_vocab_info."head"]
    type = "ClipOrPad"

    [var_name_to_vocab_info.patterns.'tables\.(\w+)\.weight']
    new_vocab = 'today/\1.txt'
    old_vocab = 'yesterday/\1.txt'

    [var_name_to_prev_var_name]
    "encoder." = "bert/encoder/"

    [var_name_to_prev_var_name.patterns]
    'blocks\.(\d+)\.(.+)' = 'block_\1/\2'

What stands where a `VocabInfo` does is any of the classes below, by `type`, each with its own
fields: a field that is added to one of them can be said here, too. What `backup_initializer` may
say is in `initializer_tables`, and what patterns may in `info_templates`.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, cast

from torch_warmstart.errors import SettingsError, path_of, shown_value
from torch_warmstart.settings.info_templates import InfoTemplate, check_groups, groups_in
from torch_warmstart.settings.initializer_tables import (
    Initializers,
    check_names,
    initializer_of,
    table_of,
)
from torch_warmstart.settings.name_rules import NameRules, Names
from torch_warmstart.settings.rules_file import lines_of
from torch_warmstart.settings.settings import WarmStartSettings
from torch_warmstart.settings.toml_text import LARGEST, read_toml, toml_lines
from torch_warmstart.settings.vocab_infos import (
    FROM_CHECKPOINT,
    ClipOrPad,
    FromCheckpoint,
    SegmentInfo,
    VocabInfo,
)
from torch_warmstart.storage import whole_file

_LIST = "warm_start"
_RENAMES, _PATTERNS = "var_name_to_prev_var_name", "patterns"
_INFOS, _FROM_CHECKPOINT = "var_name_to_vocab_info", "from_checkpoint"
_SEGMENTS = ("new_segments", "old_segments")
_CLASSES: dict[str, type] = {
    "VocabInfo": VocabInfo,
    "ClipOrPad": ClipOrPad,
    "SegmentInfo": SegmentInfo,
}
_WHAT = "settings file"


# -- reading ---------------------------------------------------------------------------------------


def read_settings(
    path: str | os.PathLike[str], initializers: Initializers, checkpoint: str | None = None
) -> WarmStartSettings | list[WarmStartSettings]:
    """Settings, or a list of them; `load_settings` is this for users.

    A `checkpoint` stands for the one that the file may name; each of a list has its own.
    """
    name = os.path.basename(path_of("load_settings: path", path))
    content = read_toml(path, _WHAT)
    if _LIST not in content:
        given = {} if checkpoint is None else {"ckpt_to_initialize_from": checkpoint}
        return _settings({**content, **given}, name, initializers)
    several = content[_LIST]
    if list(content) != [_LIST] or not isinstance(several, list) or not several:
        raise SettingsError(
            f"{name}: [[{_LIST}]] tables are a list of settings; nothing else stands beside them."
        )
    return [
        _settings(table, f"{name}, [[{_LIST}]] {number},", initializers)
        for number, table in enumerate(several, 1)
    ]


def _settings(table: Any, where: str, initializers: Initializers) -> WarmStartSettings:
    if not isinstance(table, Mapping):
        raise SettingsError(f"{where} is no table of settings.")
    said = dict(table)
    if _RENAMES in said:
        said[_RENAMES] = _renames(said[_RENAMES], f"{where}: {_RENAMES}")
    if _INFOS in said:
        said[_INFOS] = _infos(said[_INFOS], f"{where}: {_INFOS}", initializers)
    settings: WarmStartSettings = _made(WarmStartSettings, said, where)
    return settings


def _renames(value: Any, where: str) -> Any:
    """Names and scopes, and patterns below them, in their order."""
    if not isinstance(value, Mapping):
        return value  # which the settings refuse by name
    names = {key: target for key, target in value.items() if key != _PATTERNS}
    patterns = value.get(_PATTERNS, {})
    if isinstance(patterns, str | list):  # a variable of that name
        return value
    for source, target in [*names.items(), *patterns.items()]:
        is_list = isinstance(target, list) and all(isinstance(one, str) for one in target)
        if not (isinstance(target, str) or (is_list and source in names)):
            quoted = " A name with dots stands in quotes." if isinstance(target, Mapping) else ""
            raise SettingsError(f"{where}: {source!r} is for a name, not for {target!r}.{quoted}")
    renames: dict[str, Names] = dict(names)
    return NameRules(renames, tuple(patterns.items())) if patterns else renames


def _infos(value: Any, where: str, initializers: Initializers) -> Any:
    """By name, and below `patterns` by pattern."""
    if not isinstance(value, Mapping):
        return value
    patterns: Mapping[str, Any] = value[_PATTERNS] if _has_patterns(value) else {}
    infos: dict[Any, Any] = {
        name: _info(info, f"{where}.{name}", initializers)
        for name, info in value.items()
        if not (patterns and name == _PATTERNS)
    }
    for text, info in patterns.items():
        at = f"{where}.{_PATTERNS}.{text!r}"
        pattern = _compiled(text, at)
        check_groups(info, pattern, at)
        make = functools.partial(_info, where=at, initializers=initializers)
        made = make(info)  # what is wrong is said now, and not for the first table
        infos[pattern] = InfoTemplate(info, make) if groups_in(info) else made
    return infos


def _has_patterns(infos: Mapping[str, Any]) -> bool:
    """Whether there is a table of patterns, and not what is said of a module of that name."""
    value = infos.get(_PATTERNS)
    if not isinstance(value, Mapping) or {"new_vocab", "type"} & value.keys():
        return False
    return all(isinstance(one, Mapping | list) for one in value.values())


def _compiled(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise SettingsError(f"{where} is no regular expression: {error}.") from error


def _info(value: Any, where: str, initializers: Initializers) -> Any:
    if isinstance(value, list):
        return [_info(one, where, initializers) for one in value]
    if not isinstance(value, Mapping):
        return value
    said = dict(value)
    kind = said.pop("type", "VocabInfo")
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise SettingsError(f"{where}: type is {' or '.join(map(repr, _CLASSES))}, not {kind!r}.")
    _check_kind(said, kind, where)
    if "backup_initializer" in said:
        said["backup_initializer"] = initializer_of(said["backup_initializer"], where, initializers)
    if "old_vocab" in said:
        said["old_vocab"] = _old_vocab(said["old_vocab"], f"{where}.old_vocab")
    if isinstance(said.get("fallback"), list):
        said["fallback"] = [
            [_older(pair[0], where, initializers), _old_vocab(pair[1], f"{where}.fallback")]
            if isinstance(pair, list) and len(pair) == 2
            else pair
            for pair in said["fallback"]
        ]
    for name in _SEGMENTS if kind == "SegmentInfo" else ():
        if name in said:
            said[name] = _segments(said[name], f"{where}.{name}", initializers)
    return _made(_CLASSES[kind], said, where)


def _check_kind(said: Mapping[str, Any], kind: str, where: str) -> None:
    """Raises SettingsError for fields of another class, and for a name whose dots make tables."""
    known = {name: {field.name for field in fields(made)} for name, made in _CLASSES.items()}
    unknown = said.keys() - set().union(*known.values())
    if any(isinstance(said[name], Mapping) for name in unknown):
        raise SettingsError(
            f"{where}: {min(unknown)!r} in it is a table. A name with dots stands in quotes: "
            f'[{_INFOS}."a.weight"].'
        )
    others = [name for name in known if said.keys() <= known[name]]
    if others and kind not in others:
        raise SettingsError(
            f'{where} has what a {others[0]} has, and is none: write type = "{others[0]}" in it.'
        )


def _older(value: Any, where: str, initializers: Initializers) -> Any:
    """A checkpoint, or a table of the settings that it is read by."""
    is_table = isinstance(value, Mapping) and "ckpt_to_initialize_from" in value
    return _settings(value, f"{where}.fallback", initializers) if is_table else value


def _segments(value: Any, where: str, initializers: Initializers) -> dict[str, Any]:
    """Features in their order, which the keys of a table do not have."""
    is_list = isinstance(value, list)
    pairs = [one for one in value if isinstance(one, list) and len(one) == 2] if is_list else []
    if not is_list or len(pairs) < len(value):
        raise SettingsError(
            f"{where} is a list of features in their order, each with its number of columns or "
            'what a VocabInfo has: [["age", 1], ["city", {new_vocab = "new.txt", old_vocab = '
            '"old.txt"}]].'
        )
    segments: dict[str, Any] = {}
    for name, width in pairs:
        if not isinstance(name, str) or name in segments:
            what = "is there twice" if name in segments else "is no name of a feature"
            raise SettingsError(f"{where}: {name!r} {what}.")
        segments[name] = _info(width, f"{where}.{name}", initializers)
    return segments


def _old_vocab(value: Any, where: str) -> Any:
    """`{from_checkpoint = "genres_lookup"}`, or `true` for what needs no name."""
    name = value.get(_FROM_CHECKPOINT) if isinstance(value, Mapping) else None
    if name is not True and not isinstance(name, str):
        return value  # rows by entry, of which one may be called so
    check_names(value, {_FROM_CHECKPOINT: True}, where, f"beside {_FROM_CHECKPOINT} there is no")
    if name is True:
        return FROM_CHECKPOINT
    try:
        return FROM_CHECKPOINT[name]
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _made(made: type, said: Mapping[str, Any], where: str) -> Any:
    """A value of a class, of the fields that a file says."""
    known = {field.name: _default(field) is MISSING for field in fields(made)}
    check_names(said, known, where, f"{made.__name__} has no field")
    nothing = {name: None for name, value in said.items() if value is False and _may_be_none(name)}
    try:
        return made(**{**said, **nothing})
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _may_be_none(name: str) -> bool:
    """Whether `false` says None: TOML has no word for it."""
    return name == "vars_to_warm_start"


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


# -- writing ---------------------------------------------------------------------------------------


def write_settings(
    path: str | os.PathLike[str],
    settings: WarmStartSettings | Sequence[WarmStartSettings],
    initializers: Initializers,
) -> None:
    """Writes settings; `save_settings` is this for users."""
    if isinstance(settings, WarmStartSettings):
        table: dict[str, Any] = _said_of(settings, "", initializers)
    elif not isinstance(settings, Sequence):
        raise SettingsError(
            f"save_settings takes WarmStartSettings or a list of them, not {shown_value(settings)}."
        )
    elif not settings:
        raise SettingsError("save_settings: a list of settings needs at least one.")
    else:
        table = {
            _LIST: [_said_of(one, f"[{at}].", initializers) for at, one in enumerate(settings)]
        }
    text = "\n".join(toml_lines(table)).lstrip("\n") + "\n"
    with whole_file(os.fsdecode(path), force=True) as file:
        file.write(text.encode())


def _said_of(value: Any, where: str, initializers: Initializers) -> dict[str, Any]:
    """The fields of a value that are not its class's default, as plain values."""
    if not isinstance(value, (WarmStartSettings, *_CLASSES.values())):
        raise SettingsError(f"save_settings takes WarmStartSettings, not a {type(value).__name__}.")
    said: dict[str, Any] = {}
    for field in fields(cast("Any", value)):
        found = getattr(value, field.name)
        at = f"{where}{field.name}"
        if _is_default(found, _default(field)):
            continue
        if field.name == _RENAMES:
            said[field.name] = _rename_table(found, at)
        elif field.name == "backup_initializer":
            said[field.name] = table_of(found, at, initializers, _plain_of(initializers))
        elif field.name == _INFOS:
            said[field.name] = _info_tables(found, at, initializers)
        elif isinstance(value, SegmentInfo) and field.name in _SEGMENTS:
            said[field.name] = [
                [name, _plain(one, f"{at}[{name!r}]", initializers)] for name, one in found.items()
            ]
        elif found is None and _may_be_none(field.name):
            said[field.name] = False
        else:
            said[field.name] = _plain(found, at, initializers)
    return said


def _is_default(found: Any, default: Any) -> bool:
    """Whether a field need not be written; what is not plain is compared by being the same."""
    if found is default or (isinstance(found, Mapping) and not found and default is None):
        return True
    plain = (bool, int, float, str, type(None))
    return isinstance(found, plain) and type(found) is type(default) and found == default


def _plain(value: Any, where: str, initializers: Initializers) -> Any:
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise SettingsError(
            f"{where} has more than the 64 bits of an integer of TOML. Give a path instead, or "
            "keep these settings in Python."
        )
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, FromCheckpoint):
        return {_FROM_CHECKPOINT: value.name or True}
    if type(value) in (WarmStartSettings, *_CLASSES.values()):
        kind = type(value).__name__
        of_kind = {"type": kind} if kind in ("ClipOrPad", "SegmentInfo") else {}
        return {**of_kind, **_said_of(value, f"{where}.", initializers)}
    if isinstance(value, Mapping):
        return {
            _name(k, where): _plain(v, f"{where}[{k!r}]", initializers) for k, v in value.items()
        }
    if isinstance(value, list | tuple | range):
        return [_plain(one, f"{where}[{at}]", initializers) for at, one in enumerate(value)]
    raise _unsayable(value, where)


def _plain_of(initializers: Initializers) -> Any:
    return lambda value, where: _plain(value, where, initializers)


def _info_tables(infos: Mapping[Any, Any], where: str, initializers: Initializers) -> Any:
    """By name, and below `patterns` by pattern."""
    patterns = {key: info for key, info in infos.items() if isinstance(key, re.Pattern)}
    names = {key: info for key, info in infos.items() if key not in patterns}
    tables: dict[str, Any] = _plain(names, where, initializers)
    if not patterns:
        return tables
    if _PATTERNS in tables:
        raise SettingsError(
            f"{where} has patterns, and a settings file has no second place for a module "
            f"{_PATTERNS!r}: name its variables ({_PATTERNS}.weight)."
        )
    return {**tables, _PATTERNS: dict(_patterns(patterns, where, initializers))}


def _patterns(
    patterns: Mapping[re.Pattern[str], Any], where: str, initializers: Initializers
) -> Iterator[tuple[str, Any]]:
    for pattern, info in patterns.items():
        at = f"{where}[{pattern.pattern!r}]"
        if re.compile(pattern.pattern).flags != pattern.flags:
            raise SettingsError(f"{at} has flags; write them into the pattern: (?i).")
        if isinstance(info, InfoTemplate):
            yield pattern.pattern, info.said
            continue
        table = _plain(info, at, initializers)
        if groups := groups_in(table):
            raise SettingsError(
                f"{at}: \\{min(groups)} in one of its texts would stand for a group in a settings "
                "file."
            )
        yield pattern.pattern, table


def _name(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise _unsayable(key, where)
    return key


def _unsayable(value: Any, where: str) -> SettingsError:
    return SettingsError(
        f"{where} is a {type(value).__name__}, which a settings file cannot say. Give a path "
        "instead, or keep these settings in Python."
    )


def _rename_table(renames: Any, where: str) -> dict[str, Any]:
    if not isinstance(renames, Mapping | Sequence | NameRules):
        raise _unsayable(renames, where)
    lines = lines_of(renames)
    names = {line.source: line.target for line in lines if line.section in ("names", "scopes")}
    patterns = {line.source: line.target for line in lines if line.section == "patterns"}
    return {**_lists(names.items()), **({_PATTERNS: patterns} if patterns else {})}


def _lists(names: Iterable[tuple[str, Names]]) -> dict[str, Any]:
    return {name: t if isinstance(t, str) else list(t) for name, t in names}
