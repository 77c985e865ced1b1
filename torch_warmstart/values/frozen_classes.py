"""Frozen dataclasses that are cheap to make: `frozen`, in place of `dataclass(frozen=True)`.

`dataclasses` compiles up to seven methods when a class is made, which takes 0.7 to 1.2 ms (Python
3.11); of a hundred small classes that was more than half of a first warm start's imports. Here the
methods are written once, and shared: a class takes 0.1 ms. Only a class that is called often, as in
models of many variables, gets a compiled `__init__`, in a quarter of the shared one's time a call.
`fields`, `replace`, `asdict`, `match`, `copy` and `pickle` know such a class as they know any
dataclass.

What users make themselves (`WarmStartSettings`, `VocabInfo`, initialisers) stays a dataclass as the
standard library makes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from reprlib import recursive_repr
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        """For checkers of types only: `typing` has it from Python 3.11 on."""
        return lambda decorator: decorator


_T = TypeVar("_T")
_put = object.__setattr__
_OFTEN = 200  # calls, from which on a class has its own __init__: to compile one takes 0.2 ms
_NOT_GIVEN = object()


@overload
def frozen(made: type[_T], /) -> type[_T]: ...
@overload
def frozen(
    *, eq: bool = True, repr: bool = True, slots: bool = True
) -> Callable[[type[_T]], type[_T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(
    made: type[_T] | None = None, /, *, eq: bool = True, repr: bool = True, slots: bool = True
) -> Any:
    """Makes a frozen dataclass of a class, by shared methods instead of compiled ones.

    Args:
        made: The class; its annotations are the fields, as for `dataclasses.dataclass`.
        eq: Whether values are equal if their fields are; else a value is equal to itself only.
        repr: Whether it is shown by its fields.
        slots: Without them, a class may have cached properties.

    Example:
        >>> @frozen
        ... class Box:
        ...     offset: int
        ...     size: int = 1
        >>> Box(3)
        Box(offset=3, size=1)
    """

    def make(cls: type[_T]) -> type[_T]:
        return _with_methods(cls, eq=eq, repr=repr, slots=slots)

    return make if made is None else make(made)


def _with_methods(cls: type[_T], *, eq: bool, repr: bool, slots: bool) -> type[_T]:
    made = dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
    methods = {**_ALWAYS, **(_BY_FIELDS if eq else {}), **({"__repr__": _repr} if repr else {})}
    if slots:
        methods |= {"__getstate__": _state, "__setstate__": _set_state}
    for name, method in methods.items():
        if name not in cls.__dict__:  # its own goes first
            setattr(made, name, method)
    made.__value__ = _Fields(made, fields(made))  # type: ignore[arg-type, attr-defined]
    return made


class _Fields:
    """What the shared methods know of a class."""

    __slots__ = (
        "after",
        "compared",
        "defaults",
        "factories",
        "made",
        "names",
        "number_of",
        "of",
        "places",
        "shown",
    )

    def __init__(self, made: type, all_fields: tuple[Field[Any], ...]) -> None:
        self.of, self.made = made, 0  # by the shared __init__
        self.places = tuple(each.name for each in all_fields if not each.kw_only)
        self.names = (*self.places, *(each.name for each in all_fields if each.kw_only))
        self.number_of = {name: number for number, name in enumerate(self.names)}
        self.defaults = {e.name: e.default for e in all_fields if e.default is not MISSING}
        self.factories = {
            each.name: each.default_factory
            for each in all_fields
            if each.default_factory is not MISSING
        }
        self.shown = tuple(each.name for each in all_fields if each.repr)
        compared = [each.name for each in all_fields if each.compare]
        self.compared: Callable[[Any], Any] = attrgetter(*compared) if compared else type
        self.after = getattr(made, "__post_init__", None)


def _init(self: Any, /, *args: Any, **kwargs: Any) -> None:
    """Sets the fields, then runs `__post_init__`."""
    known: _Fields = self.__value__
    known.made += 1
    if known.made == _OFTEN:
        known.of.__init__ = _compiled(known)  # type: ignore[misc]
    given = len(args)
    if given > len(known.places):
        _refuse(type(self), args, kwargs)
    for name, value in zip(known.places, args, strict=False):
        _put(self, name, value)
    for name, value in kwargs.items():
        if known.number_of.get(name, -1) < given:
            _refuse(type(self), args, kwargs)
        _put(self, name, value)
    if given + len(kwargs) != len(known.names):
        _set_defaults(self, args, kwargs)
    if known.after is not None:
        known.after(self)


def _compiled(known: _Fields) -> Callable[..., None]:
    """The same for one class, as `dataclasses` would write it, by the slots' own setters."""
    space: dict[str, Any] = {"_put": _put, "_not_given": _NOT_GIVEN, "_after": known.after}
    lines = [f"def __init__(_self, {', '.join(_parameters(known, space))}):"]
    for name in known.names:
        value = f"_make_{name}() if {name} is _not_given else {name}"
        value = value if name in known.factories else name
        slot = getattr(known.of, name, None)
        if isinstance(slot, MemberDescriptorType):
            space[f"_set_{name}"] = slot.__set__
            lines.append(f"  _set_{name}(_self, {value})")
        else:
            lines.append(f"  _put(_self, {name!r}, {value})")
    lines.append("  _after(_self)" if known.after else "  return")
    exec(compile("\n".join(lines), __file__, "exec"), space)  # told from what a file would run
    made: Callable[..., None] = space["__init__"]
    return made


def _parameters(known: _Fields, space: dict[str, Any]) -> Iterator[str]:
    """As they are written; what they begin with is put into `space`."""
    for number, name in enumerate(known.names):
        if number == len(known.places):
            yield "*"
        if name in known.factories:
            space[f"_make_{name}"] = known.factories[name]
            yield f"{name}=_not_given"
        elif name in known.defaults:
            space[f"_default_{name}"] = known.defaults[name]
            yield f"{name}=_default_{name}"
        else:
            yield name


def _set_defaults(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    known: _Fields = self.__value__
    for name in known.names[len(args) :]:
        if name in kwargs:
            continue
        if name in known.defaults:
            _put(self, name, known.defaults[name])
        elif name in known.factories:
            _put(self, name, known.factories[name]())
        else:
            raise TypeError(f"{type(self).__name__}() is missing a required argument: {name!r}")


def _refuse(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises for arguments that are too many, unknown or given twice."""
    known: _Fields = cls.__value__  # type: ignore[attr-defined]
    if len(args) > len(known.places):
        raise TypeError(
            f"{cls.__name__}() takes {len(known.places)} positional arguments, "
            f"but {len(args)} were given"
        )
    for name in kwargs:
        if name not in known.number_of:
            raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {name!r}")
        if known.number_of[name] < len(args):
            raise TypeError(f"{cls.__name__}() got multiple values for argument {name!r}")


def _eq(self: Any, other: Any) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    compared = self.__value__.compared
    return compared(self) == compared(other)


def _hash(self: Any) -> int:
    return hash(self.__value__.compared(self))


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__value__.shown)
    return f"{type(self).__qualname__}({shown})"


def _set_attribute(_: Any, name: str, __: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete_attribute(_: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__value__.names]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__value__.names, state, strict=True):
        _put(self, name, value)


class _Signature:
    """`inspect.signature` of a class, worked out when somebody asks (`help`, notebooks)."""

    def __get__(self, instance: object, cls: type) -> inspect.Signature:
        return inspect.Signature([_parameter(each) for each in fields(cls)])


def _parameter(of: Field[Any]) -> inspect.Parameter:
    has_default = of.default is not MISSING or of.default_factory is not MISSING
    default = of.default if of.default is not MISSING else ...
    kind = inspect.Parameter.KEYWORD_ONLY if of.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(
        of.name,
        kind,
        default=default if has_default else inspect.Parameter.empty,
        annotation=of.type,
    )


_ALWAYS: dict[str, Any] = {
    "__init__": _init,
    "__setattr__": _set_attribute,
    "__delattr__": _delete_attribute,
    "__signature__": _Signature(),
}
_BY_FIELDS: dict[str, Any] = {"__eq__": _eq, "__hash__": _hash}
