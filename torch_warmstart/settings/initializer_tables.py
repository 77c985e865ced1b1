"""What new rows begin with, in a settings file: functions of torch.nn.init and tws.init by name.

    backup_initializer = "ones_"
    backup_initializer = {name = "normal_", std = 0.02}
    backup_initializer = [{name = "subword", pieces = "old/tokenizer.json"}, "mean"]      # |
    backup_initializer = {name = "mean", noise = 0.02}                       # + init.noise(0.02)
    backup_initializer = {first_of = [{name = "alias", mapping = "casefold"}, "mean"], noise = 0.1}

An initialiser of `tws.init` says how it was made by `name` and `arguments`, which are its
function's. `false` stands for None; where keys are no text, a mapping is a list of pairs.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch_warmstart.errors import SettingsError, did_you_mean
from torch_warmstart.settings.vocab_infos import KEEP, takes_new_rows

Initializers = Mapping[str, Callable[..., Any]]  # what `backup_initializer` may be, by name
Plain = Callable[[Any, str], Any]  # a value as TOML can say it; gets where it stands

_FIRST_OF, _NOISE = "first_of", "noise"


def is_of_rows(value: object) -> bool:
    """Whether it is an initialiser of `tws.init`."""
    return takes_new_rows(value) and isinstance(getattr(value, "arguments", None), Mapping)


def check_names(
    said: Mapping[str, Any], known: Mapping[str, bool], where: str, unknown: str
) -> None:
    """Raises SettingsError for a name that is not known, or one that is needed and not said.

    Args:
        said: What a file says.
        known: Whether each name is needed.
        where: Where the file says it.
        unknown: What to say before a name that is not known: `Type has no field`.
    """
    for name in said:
        if name not in known:
            raise SettingsError(f"{where}: {unknown} {name!r}.{did_you_mean(name, known)}")
    lacking = [name for name, is_needed in known.items() if is_needed and name not in said]
    if lacking:
        what = unknown.partition(" ")[0]
        raise SettingsError(f"{where}: {what} needs {' and '.join(lacking)}.")


# -- reading ---------------------------------------------------------------------------------------


def initializer_of(value: Any, where: str, initializers: Initializers) -> Any:
    """What a file says; raises SettingsError for what there is not."""
    where = f"{where}: backup_initializer"
    if value == KEEP or not isinstance(value, str | list | Mapping):
        return value  # which the info refuses by itself
    return _made(value, where, initializers)


def _made(value: Any, where: str, initializers: Initializers) -> Any:
    if isinstance(value, list):
        return _first_of(value, where, initializers)
    said = dict(value) if isinstance(value, Mapping) else {"name": value}
    noise = said.pop(_NOISE, None)
    if _FIRST_OF in said:
        if len(said) > 1 or not isinstance(said[_FIRST_OF], list):
            raise SettingsError(f"{where}: beside a list first_of stands nothing but noise.")
        made = _first_of(said[_FIRST_OF], where, initializers)
    else:
        made = _called(said.pop("name", None), said, where, initializers)
    if noise is None:
        return made
    if not is_of_rows(made):
        raise SettingsError(f"{where}: noise is added to initialisers of tws.init only.")
    return made + _call(initializers[_NOISE], {"scale": noise}, where)


def _first_of(parts: list[Any], where: str, initializers: Initializers) -> Any:
    made = [_made(part, f"{where}[{at}]", initializers) for at, part in enumerate(parts)]
    if not made or not all(map(is_of_rows, made)):
        raise SettingsError(f"{where}: a list is of initialisers of tws.init, the first one first.")
    try:
        return functools.reduce(operator.or_, made)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _called(name: Any, said: dict[str, Any], where: str, initializers: Initializers) -> Any:
    if not isinstance(name, str) or name not in initializers:
        near = did_you_mean(name, initializers) if isinstance(name, str) else ""
        raise SettingsError(
            f"{where} is 'keep' or a function of torch.nn.init or of tws.init, not {name!r}.{near}"
        )
    function = initializers[name]
    if name.endswith("_"):  # torch's, which is called with the tensor later
        _check_arguments(function, said, where, first=1)
        return functools.partial(function, **said) if said else function
    _check_arguments(function, said, where)
    read = {
        name: None if value is False else _argument(name, value) for name, value in said.items()
    }
    return _call(function, read, where)


def _check_arguments(
    function: Callable[..., Any], said: Mapping[str, Any], where: str, *, first: int = 0
) -> None:
    parameters = [*inspect.signature(function).parameters.values()][first:]
    known = {one.name: one.default is inspect.Parameter.empty for one in parameters}
    check_names(said, known, where, f"{function.__name__} has no argument")


def _call(function: Callable[..., Any], said: Mapping[str, Any], where: str) -> Any:
    try:
        return function(**said)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _argument(name: str, value: Any) -> Any:
    """Lists that stand for a mapping, and for a table from outside."""
    if name in ("mapping", "groups", "pieces") and _is_of_pairs(value):
        return dict(value)
    if name in ("vectors", "old_vectors", "donor") and isinstance(value, list):
        return tuple(
            tuple(one) if at and isinstance(one, list) else one for at, one in enumerate(value)
        )
    return value


def _is_of_pairs(value: Any) -> bool:
    is_list = isinstance(value, list)
    return is_list and all(isinstance(o, list) and len(o) == 2 and o[0].__hash__ for o in value)


# -- writing ---------------------------------------------------------------------------------------


def table_of(value: Any, where: str, initializers: Initializers, plain: Plain) -> Any:
    """What is written; raises SettingsError, by name, for what a file cannot say."""
    if isinstance(value, str):
        return value
    if not is_of_rows(value):
        return _torch_function(value, where, initializers, plain)
    arguments = value.arguments
    if "parts" in arguments:
        return [
            table_of(part, f"{where}[{at}]", initializers, plain)
            for at, part in enumerate(arguments["parts"])
        ]
    if "base" in arguments:
        base = table_of(arguments["base"], where, initializers, plain)
        said = {"name": base} if isinstance(base, str) else base
        said = {_FIRST_OF: said} if isinstance(said, list) else said
        return {**said, _NOISE: arguments["scale"]}
    parameters = inspect.signature(initializers[value.name]).parameters
    said = {
        name: _plain_argument(one, f"{where}.{name}", plain)
        for name, one in arguments.items()
        if one is not parameters[name].default and one != parameters[name].default
    }
    return {"name": value.name, **said} if said else value.name


def _plain_argument(value: Any, where: str, plain: Plain) -> Any:
    if value is None:
        return False
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        return [
            [plain(k, f"{where}, a key,"), plain(v, f"{where}[{k!r}]")] for k, v in value.items()
        ]
    return plain(value, where)


def _torch_function(value: Any, where: str, initializers: Initializers, plain: Plain) -> Any:
    function = value.func if isinstance(value, functools.partial) else value
    name = next((name for name, known in initializers.items() if known is function), None)
    if name is None or (isinstance(value, functools.partial) and value.args):
        return plain(value, where)  # which refuses it
    if not isinstance(value, functools.partial):
        return name
    return {"name": name, **plain(value.keywords, where)}
