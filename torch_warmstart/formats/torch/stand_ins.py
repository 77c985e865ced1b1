"""What stands for the objects of others in a pickle: inert, so that the tensors beside can be read.

Files of training frameworks have more than tensors: a Namespace, a log, a learning rate of numpy.
torch's unpickler of weights refuses all that it does not know. Here each name that a file asks for
and torch does not allow becomes a class of ours which keeps what it is given and does nothing; no
code of the file's, and none that it names, is imported or called. What it is given may hold
tensors: of a pickled module they are read, anywhere else nobody knows what they mean.
"""

from __future__ import annotations

import contextlib
import copy
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.errors import UnsupportedError, WarmStartError

_MOST = 64  # names of others in one file; torch looks through all of them at each call
_MOST_TENSORS = 100_000  # of a pickled module; modules may contain each other
_LONGEST = 4_096  # characters of a name
_MOST_CHARACTERS = 1 << 26  # of all names of a pickled module
_DEPTH = 6  # of containers that are looked through
# Of numpy's dtypes, those that torch has.
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1", "c8", "c16")
# What no file of tensors asks for; torch refuses the first four itself, whoever allows them.
_PROGRAMS = (
    *("sys", "os", "posix", "nt", "subprocess", "importlib", "runpy", "pty", "shutil", "socket"),
    *("io", "_io", "ctypes", "code", "marshal"),
    *(
        "builtins.eval",
        "builtins.exec",
        "builtins.compile",
        "builtins.open",
        "builtins.__import__",
        "builtins.breakpoint",
        "builtins.input",
    ),
)
# As pickles of protocol 2, which torch writes, call modules that have another name today.
_PYTHON_2 = {"commands": "subprocess", "__builtin__": "builtins"}
# Of these an entry of a state_dict may be a tensor in another form.
_OF_ARRAYS = ("torch", "torchao", "numpy", "jax", "jaxlib", "tensorflow", "paddle", "cupy")


class _Turns:
    """Who loads: many without stand-ins, or one with them. What torch allows is the process's."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._plain = 0

    @contextlib.contextmanager
    def plain(self) -> Iterator[None]:
        with self._changed:
            self._plain += 1
        try:
            yield
        finally:
            with self._changed:
                self._plain -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._plain)
            yield


TURNS = _Turns()


class StandIn:
    """An object of a class that is not imported, with what the pickle gives it."""

    held: tuple[Any, ...]

    def __new__(cls, *arguments: Any) -> StandIn:
        self = super().__new__(cls)
        self.held = arguments
        return self

    def __init__(self, *arguments: Any) -> None:
        """Does nothing: what is given has been kept."""

    def __setstate__(self, state: Any) -> None:
        self.held = (*self.held, state)

    def __repr__(self) -> str:
        return f"<stands for {name_of(self)!r}>"


def load_with_stand_ins(file: str | IO[bytes], load: Callable[[], Any]) -> Any:
    """What `load` gives, with stand-ins for what a file asks for and torch does not allow.

    Arrays and numbers of numpy are what they are, and a pickled module is the mapping that its
    state_dict would be. None if that does not help: then the file is refused as it is.
    """
    filled: dict[str, Any] = {}  # by name: what is made of a class that is a dict's, or a list's
    with TURNS.alone():
        names = _names_in(file)
        if not names or len(names) > _MOST or any(map(_is_of_programs, names)):
            return None
        for _ in range(len(names) + 1):
            stand_ins = [_stand_in(name, filled.get(name)) for name in names]
            try:
                with torch.serialization.safe_globals(stand_ins):
                    return _Plain().of(load())
            except WarmStartError:
                raise
            except Exception as error:
                found = _to_be_filled(str(error), names)
                if found is None or found[0] in filled:
                    return None  # it was to do more than to be there
                filled.update([found])
    return None


def _to_be_filled(text: str, names: Iterable[str]) -> tuple[str, Any] | None:
    """The class that torch would not put entries into, and what it would, by its error's words."""
    kinds: dict[str, Any] = {"Can only SETITEM": {}, "Can only append": [], "Can only extend": []}
    container = next((kind for words, kind in kinds.items() if words in text), None)
    name = next((name for name in names if f"<class '{name}'>" in text), None)
    return None if container is None or name is None else (name, container)


def program_in(file: str | IO[bytes]) -> str | None:
    """The first name of a file's that runs programs, whatever else it asks for."""
    with TURNS.alone():
        return next(filter(_is_of_programs, _names_in(file)), None)


def _is_of_programs(name: str) -> bool:
    first, dot, rest = name.partition(".")
    today = f"{_PYTHON_2.get(first, first)}{dot}{rest}."
    return any(today.startswith(f"{program}.") for program in _PROGRAMS)


def _names_in(file: str | IO[bytes]) -> list[str]:
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # of a damaged file, or one before torch 1.6: torch says what is wrong
        return []
    finally:
        if not isinstance(file, str):
            file.seek(0)


def _stand_in(name: str, container: Any = None) -> Any:
    """What stands for a name: for containers, where that is known, an empty one that is plain."""
    module, _, qualified = name.rpartition(".")
    if container is not None:
        made = {"__new__": lambda _cls, *given: _emptied(container, given)}
        return type("StandIn", (), {"__module__": module, "__qualname__": qualified, **made})
    if name == "collections.defaultdict":
        return _named(lambda *given: _emptied({}, given[1:]), module, qualified)
    if name == "collections.deque":
        return _named(lambda *given: list(*given[:1]), module, qualified)
    if name == "builtins.bytes":  # of none: others are given as a text that torch encodes
        return _named(lambda *given: _emptied(b"", given), module, qualified)
    return type("StandIn", (StandIn,), {"__module__": module, "__qualname__": qualified})


def _emptied(container: Any, given: tuple[Any, ...]) -> Any:
    """A new container; raises where something was given that would be lost."""
    if any(not isinstance(one, str | int | float | None) for one in given):
        raise ValueError("what it is given would be lost")
    return copy.copy(container)


def _named(function: Any, module: str, qualified: str) -> Any:
    function.__module__, function.__qualname__ = module, qualified  # by which torch finds it
    return function


def name_of(stand_in: StandIn) -> str:
    """What it stands for."""
    return f"{type(stand_in).__module__}.{type(stand_in).__qualname__}"


def first_doubtful(values: Iterable[Any]) -> StandIn | None:
    """The first that stands for something that may have been a tensor, or is made of some."""
    seen: set[int] = set()  # many may hold the same
    for each in all_in(values, seen):
        if isinstance(each, StandIn) and (
            _is_of_arrays(each) or any(map(_may_be_values, all_in(each.held, set())))
        ):
            return each
    return None


def _may_be_values(value: Any) -> bool:
    storages = torch.UntypedStorage | torch.TypedStorage
    return isinstance(value, torch.Tensor | storages) or (
        isinstance(value, StandIn) and _is_of_arrays(value)
    )


def _is_of_arrays(stand_in: StandIn) -> bool:
    """Whether it is of a library of arrays, and neither a number nor a dtype of numpy's."""
    name = name_of(stand_in)
    is_number = name == "numpy.dtype" or name.endswith(".multiarray.scalar")
    return name.partition(".")[0] in _OF_ARRAYS and not is_number


def all_in(values: Iterable[Any], seen: set[int]) -> Iterator[Any]:
    """Everything in nested containers that has not been seen."""
    todo = list(values)
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, Mapping):
            todo += (*each.keys(), *each.values())
        elif isinstance(each, list | tuple | set | frozenset):
            todo += each
        elif isinstance(each, StandIn):
            todo += each.held


# -- what is known ---------------------------------------------------------------------------------


class _Plain:
    """Containers in which stand-ins that are known have become what they stand for."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Any] = {}  # by id and depth: one may be in many

    def of(self, node: Any, depth: int = _DEPTH) -> Any:
        """The same object, if nothing in it is known."""
        if isinstance(node, StandIn):
            if (id(node), 0) not in self._known:
                self._known[id(node), 0] = _known(node)
            return self._known[id(node), 0]
        if depth == 0 or not isinstance(node, dict | list):
            return node
        at = id(node), depth
        if at not in self._known:
            self._known[at] = self._changed(node, depth - 1)
        return self._known[at]

    def _changed(self, node: Any, depth: int) -> Any:
        entries = enumerate(node) if isinstance(node, list) else node.items()
        changed = {
            key: plain for key, value in entries if (plain := self.of(value, depth)) is not value
        }
        if not changed:
            return node
        made = copy.copy(node)  # an OrderedDict with the attributes that torch gives it
        for key, value in changed.items():
            made[key] = value
        return made


def _known(stand_in: StandIn) -> Any:
    if _is_module(stand_in):
        return _state_dict_of(stand_in)
    if _is_optimizer(stand_in):
        return _state_of_optimizer(stand_in)
    kind = name_of(stand_in).removeprefix("numpy._core.").removeprefix("numpy.core.")
    if kind == "multiarray._reconstruct":
        return _array(stand_in)
    if kind == "multiarray.scalar" and len(stand_in.held) == 2:
        dtype, data = stand_in.held
        number = _values(dtype, data)
        return stand_in if number is None or len(number) != 1 else number[0].item()
    return stand_in


def _array(stand_in: StandIn) -> Any:
    """An array of numpy's as a tensor, by its state: version, shape, dtype, order, bytes."""
    state = stand_in.held[-1]
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[1], tuple):
        return stand_in
    kind = stand_in.held[0]  # of which it is: a subclass may mean something else by its numbers
    if not isinstance(kind, type) or not issubclass(kind, StandIn) or type(state[3]) is not bool:
        return stand_in
    if f"{kind.__module__}.{kind.__qualname__}" != "numpy.ndarray":
        return stand_in
    _, shape, dtype, is_turned, data = state
    values = _values(dtype, data)
    if values is None or not all(type(size) is int and size >= 0 for size in shape):
        return stand_in
    if math.prod(shape) != len(values):
        return stand_in
    order: Literal["F", "C"] = "F" if is_turned else "C"
    return torch.from_numpy(np.array(values.reshape(shape, order=order), order="C"))


def _values(dtype: Any, data: Any) -> npt.NDArray[Any] | None:
    """Numbers from their bytes, of a dtype that is one number in this machine's order."""
    if not isinstance(dtype, StandIn) or name_of(dtype) != "numpy.dtype":
        return None
    given, order = dtype.held[:1], dtype.held[-1]
    is_known = given and given[0] in _NUMBERS and isinstance(order, tuple) and len(order) > 1
    is_one = is_known and not any(part is not None for part in order[2:5])  # of no parts
    if not is_one or order[1] not in ("<", "|") or not isinstance(data, bytes):
        return None
    one = np.dtype(given[0])
    return np.frombuffer(data, one) if len(data) % one.itemsize == 0 else None


def _is_module(stand_in: StandIn) -> bool:
    state = _attributes(stand_in)
    return all(isinstance(state.get(n), dict) for n in ("_parameters", "_buffers", "_modules"))


def _attributes(stand_in: StandIn) -> Mapping[Any, Any]:
    state = stand_in.held[-1] if stand_in.held else None
    return state if isinstance(state, dict) else {}


def _is_optimizer(stand_in: StandIn) -> bool:
    groups = _attributes(stand_in).get("param_groups")
    return (
        isinstance(_attributes(stand_in).get("state"), dict)
        and isinstance(groups, list)
        and all(isinstance(g, dict) and isinstance(g.get("params"), list) for g in groups)
    )


def _state_of_optimizer(optimizer: StandIn) -> dict[str, Any]:
    """What a pickled optimizer would have as its state_dict: by numbers, in its groups' order."""
    attributes = _attributes(optimizer)
    groups = attributes["param_groups"]
    if sum(len(group["params"]) for group in groups) > _MOST_TENSORS:
        return {}
    parameters = [parameter for group in groups for parameter in group["params"]]
    numbers: dict[int, int] = {}
    for parameter in parameters:
        numbers.setdefault(id(parameter), len(numbers))
    state = {numbers[id(p)]: v for p, v in attributes["state"].items() if id(p) in numbers}
    numbered = [{**g, "params": [numbers[id(p)] for p in g["params"]]} for g in groups]
    return {"state": state, "param_groups": numbered}


def _state_dict_of(module: StandIn) -> dict[str, Any]:
    """What a pickled module would have as its state_dict; raises if that is no end of names."""
    found: dict[str, Any] = {}
    todo: list[tuple[str, StandIn, tuple[int, ...]]] = [("", module, ())]
    visited = length = 0
    while todo:
        prefix, each, around = todo.pop()
        visited += 1
        state = _attributes(each)
        transient = state.get("_non_persistent_buffers_set")
        left_out = set(transient) if isinstance(transient, set | list) else set()
        buffers = {n: b for n, b in state["_buffers"].items() if n not in left_out}
        for name, tensor in (*state["_parameters"].items(), *buffers.items()):
            if tensor is not None and isinstance(name, str) and length < _MOST_CHARACTERS:
                found[f"{prefix}{name}"] = tensor
                length += len(prefix) + len(name)
        within = (*around, id(each))
        for name, child in reversed(state["_modules"].items()):
            if child is not None and not (isinstance(child, StandIn) and _is_module(child)):
                raise UnsupportedError(
                    f"The file has a pickled module whose part {name!r} keeps its tensors in a way "
                    "of its own: save its state_dict instead."
                )
            if child is not None and isinstance(name, str) and id(child) not in within:
                todo.append((f"{prefix}{name}.", child, within))
        is_long = len(prefix) > _LONGEST or length >= _MOST_CHARACTERS
        if max(len(found), len(todo), visited) > _MOST_TENSORS or is_long:
            raise UnsupportedError(
                f"A pickled module in the file has more than {_MOST_TENSORS:,} tensors, or names "
                f"of more than {_LONGEST:,} characters."
            )
    return found
