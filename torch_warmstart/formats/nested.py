"""Which mapping of a nested container holds the tensors that are meant.

Training scripts save more than weights: `{"model": ..., "optimizer": ..., "epoch": 3}`. The user's
`entry=` says which mapping is meant, as a path of keys; without it there must be only one that can
be. An optimizer's state is never taken on its own account, and nothing is guessed among several.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from torch_warmstart.errors import SettingsError, did_you_mean, listed, plural, printable
from torch_warmstart.formats.families import COLLECTIONS, family_of, is_of_averages
from torch_warmstart.values import frozen

_Tree = Mapping[Any, Any]

# Where frameworks keep the weights. Only these come before tensors that lie beside them, such as
# the last loss; in a state_dict itself a mapping is something a module keeps besides its tensors.
USUAL = frozenset({"state_dict", "model", "model_state_dict", "module"})
EXTRA_STATE = "_extra_state"  # torch's name, behind its module's, for what that keeps besides
_LIGHTNING = "pytorch-lightning_version"
_DEPTH = 2
_DEPTH_OF_AVERAGES = 4  # callbacks keep theirs deep


class NoTensorsError(SettingsError):
    """No entry of a container has tensors."""


def is_extra_state(key: str) -> bool:
    """Whether a key is of what a module keeps beside its tensors: of whatever it likes."""
    return key.rpartition(".")[2] == EXTRA_STATE


def choose(
    tree: _Tree, where: str, entry: str | None, leaf: type, wanted: Collection[str] = ()
) -> tuple[str, _Tree]:
    """The mapping that is meant, and the path of keys to it ("": the whole).

    A mapping without tensors of its own whose mappings all belong to a model is taken with the
    names joined by dots, if the user names it, or if only so there are the names wanted.

    Args:
        tree: The container.
        where: What it is called in messages.
        entry: The user's path of keys, with `/` between them; "": the whole; None to look.
        leaf: The type of what counts as a tensor.
        wanted: The names of a model's tensors, where that is known: what has some is meant, if
            nothing else has.

    Raises:
        NoTensorsError: none has tensors.
        SettingsError: there is no such entry, or several.
    """
    path, node = ("", tree) if entry is None else (entry, _follow(tree, where, entry))
    found = _of_flax(node, leaf)
    if not found and wanted:
        found = _having(node, leaf, frozenset(wanted))
    if not found and not _is_a_layer(wanted):
        found = _of_layers(node, leaf, wanted)
    found = found or _choose_below(node, leaf)
    if entry == "" or (entry is not None and len(found) > 1):
        joined = _joined(node, leaf)
        found = {"": joined} if joined else {}
    if len(found) == 1:
        below, chosen = next(iter(found.items()))
        if entry is None and below:
            parts = _other_parts(node, leaf, below, frozenset(wanted))
            chosen = {**chosen, **parts} if parts else chosen
        return "/".join(part for part in (path, below) if part), chosen
    if found:
        raise SettingsError(_several(found, where, path, leaf))
    raise NoTensorsError(_none(node, where if not path else f"{where}, entry {path!r},"))


@frozen
class Averages:
    """Averages of weights that a container keeps beside them."""

    path: str  # of keys, as `entry=` takes it
    names: frozenset[str]  # of the tensors; none: they are in a list, in the model's order
    count: int


def find_averages(tree: _Tree, leaf: type, chosen: str) -> tuple[Averages, ...]:
    """The averages in a container, by what their entries are called, apart from what is chosen."""
    found: list[Averages] = []
    seen: set[int] = set()
    todo: list[tuple[str, Any, bool, int]] = [("", tree, False, 0)]
    while todo:
        path, node, is_average, depth = todo.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if is_average and (averages := _averages_at(path, node, leaf)) is not None:
            found.append(averages)
        elif isinstance(node, Mapping) and depth < _DEPTH_OF_AVERAGES:
            for key, child in node.items():
                if isinstance(key, str) and isinstance(child, Mapping | list | tuple):
                    is_one = is_average or is_of_averages(key)
                    todo.append((join_keys(path, key), child, is_one, depth + 1))
    return tuple(a for a in found if not f"{chosen}/".startswith(f"{a.path}/"))


def _averages_at(path: str, node: Any, leaf: type) -> Averages | None:
    if isinstance(node, Mapping):
        own = (key for key in node if _is_leaf(key, node[key], leaf))
        names = frozenset(_of_layers(node, leaf).get("", own))
        return Averages(path, names, len(names)) if names else None
    is_list = bool(node) and all(isinstance(value, leaf) for value in node)
    return Averages(path, frozenset(), len(node)) if is_list else None


def entries_beside(tree: _Tree, leaf: type, path: str) -> str:
    """The mappings with tensors in a container but one, with their first keys; "" for none."""
    if not path and "" in _of_layers(tree, leaf):
        return ""  # they are all in it
    found = {
        below: node for below, node in _candidates(tree, leaf, _DEPTH).items() if below != path
    }
    return _entries(found, "", leaf)


def entries_alike(tree: _Tree, leaf: type, chosen: str, keys: Collection[str]) -> tuple[str, ...]:
    """The chosen mapping and others that have tensors of the same names and shapes, by path.

    Args:
        tree: The container.
        leaf: The type of what counts as a tensor.
        chosen: The path of keys to what was chosen; averages of that do not count.
        keys: The names of the tensors to compare.
    """
    found = _candidates(tree, leaf, _DEPTH)
    own = found.pop(chosen, {})
    if not keys or not all(key in own for key in keys):
        return ()
    averages = {each.path for each in find_averages(tree, leaf, chosen)}
    alike = [
        path
        for path, node in found.items()
        if path not in averages
        if all(_is_leaf(key, node.get(key), leaf) for key in keys)
        if all(tuple(node[key].shape) == tuple(own[key].shape) for key in keys)
    ]
    return (chosen, *alike)


def join_keys(path: str, key: object) -> str:
    """A path of keys, one longer."""
    return f"{path}/{key}" if path else str(key)


def _follow(tree: _Tree, where: str, entry: str) -> _Tree:
    """The mapping at a path of keys; a key may itself contain slashes."""
    node: Any = tree
    left = entry
    while left:
        key = _first_key(node, left)
        if key is None:
            done = entry[: len(entry) - len(left)].rstrip("/")
            raise SettingsError(_no_such_entry(node, where, entry, done))
        node, left = node[key], left[len(key) :].lstrip("/")
    if not isinstance(node, Mapping):
        raise SettingsError(
            f"{where}: entry={entry!r} is a {type(node).__name__}, not a mapping of names to "
            "tensors."
        )
    return node


def _first_key(node: Any, path: str) -> str | None:
    """The longest run of the path's parts that is a key."""
    end = len(path)
    while end > 0:
        if isinstance(node, Mapping) and path[:end] in node:
            return path[:end]
        end = path.rfind("/", 0, end)
    return None


def _no_such_entry(node: Any, where: str, entry: str, done: str) -> str:
    place = f"{where}, {done!r}," if done else where
    if not isinstance(node, Mapping):
        return f"{where} has no entry={entry!r}: its {done!r} is a {type(node).__name__}."
    wanted = entry[len(done) :].strip("/").split("/")[0]
    hint = did_you_mean(wanted, [key for key in node if isinstance(key, str)])
    return f"{place} has no {wanted!r}, as entry={entry!r} asks; {_keys_of(node)}.{hint}"


def _of_flax(node: _Tree, leaf: type) -> dict[str, _Tree]:
    """A model's parameters and its running statistics, which belong together.

    Not where a model is kept in its usual place beside them.
    """
    there = {name: node[name] for name in COLLECTIONS if isinstance(node.get(name), Mapping)}
    if not there or any(_has_leaves(node.get(name), leaf) for name in USUAL):
        return {}
    joined = _joined(there, leaf)
    return {"": joined} if joined and family_of(joined) == "flax" else {}


def _has_part(name: str, wanted: Collection[str]) -> bool:
    """Whether a model has a part of a name, which is not what may stand before all names."""
    begin = f"{name}."
    return any(w.startswith(begin) and w.removeprefix(begin) not in wanted for w in wanted)


def _is_a_layer(wanted: Collection[str]) -> bool:
    """Whether a model's tensors are all its own, so that what lies below a name is all of it."""
    return bool(wanted) and all(name.rpartition(".")[2] in wanted for name in wanted)


def _of_layers(node: _Tree, leaf: type, wanted: Collection[str] = frozenset()) -> dict[str, _Tree]:
    """A tree of layers, as Flax's and Keras's programs hold them: no mapping in it is a model.

    Of a model in its usual place beside others, that; unless a part of the model is called so.
    """
    places = [name for name in USUAL if isinstance(node.get(name), Mapping)]
    usual = places[0] if len(places) == 1 and not _has_part(places[0], wanted) else ""
    node = node[usual] if usual else node
    leaves = list(_leaves_below(node, leaf))
    if any("." in key or "/" in key for _, key, _ in leaves):
        return {}  # names of a model's tensors, which are no tensors of a layer
    joined = {begin + key: value for begin, key, value in leaves}
    return {usual: joined} if family_of(joined) != "torch" else {}


def _choose_below(node: _Tree, leaf: type) -> dict[str, _Tree]:
    """The one mapping that is meant at or below a node, or all that could be."""
    if _LIGHTNING in node and _has_leaves(node.get("state_dict"), leaf):
        return {"state_dict": node["state_dict"]}  # callbacks keep tensors of their own
    found = _candidates(node, leaf, _DEPTH)
    has_own = _has_leaves(node, leaf)
    if has_own and not any(path.split("/")[0] in USUAL for path in found):
        return {"": node}
    return found


def _having(node: _Tree, leaf: type, wanted: frozenset[str]) -> dict[str, _Tree]:
    """The mappings at or below a node that have tensors of the names wanted, by path.

    Of their own; or if there is none, with those of mappings further down.
    """
    below = _candidates(node, leaf, _DEPTH)
    found = {"": node, **below} if _has_leaves(node, leaf) else below
    having = {path: each for path, each in found.items() if _has_any(each, leaf, wanted)}
    if having or "" in found:
        return having
    inner = {k: v for k, v in node.items() if isinstance(k, str) and isinstance(v, Mapping)}
    joined = {k: _joined(v, leaf) for k, v in {"": node, **inner}.items() if not _is_aside(k, v)}
    return {path: each for path, each in joined.items() if _has_any(each, leaf, wanted)}


def _other_parts(node: _Tree, leaf: type, chosen: str, wanted: frozenset[str]) -> dict[str, Any]:
    """The tensors of entries beside the chosen one that are called as a module of the model.

    OpenNMT-py keeps `model` and `generator`, which is a module of the model, side by side.
    """
    found: dict[str, Any] = {}
    own = chosen.partition("/")[0]
    for key, child in node.items() if wanted else ():
        if not isinstance(key, str) or not isinstance(child, Mapping) or key == own:
            continue
        called = {f"{key}.{k}": value for k, value in child.items() if _is_leaf(k, value, leaf)}
        if not wanted.isdisjoint(called):
            found |= called
    return found


def _has_any(node: _Tree, leaf: type, wanted: frozenset[str]) -> bool:
    return any(key in wanted and _is_leaf(key, value, leaf) for key, value in node.items())


def _joined(node: _Tree, leaf: type) -> dict[str, Any]:
    """The tensors of a mapping and of those below it, their names joined by dots; each once.

    Raises SettingsError for two of one name, `a` / `b.c` and `a.b` / `c`.
    """
    joined: dict[str, Any] = {}
    for begin, key, value in _leaves_below(node, leaf):
        if joined.setdefault(begin + key, value) is not value:
            raise SettingsError(
                f"Two tensors of the checkpoint are called {printable(begin + key)!r} where the "
                "keys of its mappings are joined by dots. Name the mapping that is meant: entry=..."
            )
    return joined


def _leaves_below(node: _Tree, leaf: type) -> Iterator[tuple[str, str, Any]]:
    """The same with what each name begins with, and the key."""
    seen: set[int] = set()  # a container may contain itself, or one thing many times
    todo: list[tuple[str, _Tree]] = [("", node)]
    while todo:
        prefix, each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        for key, value in each.items():
            if _is_leaf(key, value, leaf):
                yield prefix, key, value
            elif isinstance(key, str) and isinstance(value, Mapping) and not _is_aside(key, value):
                todo.append((f"{prefix}{key}.", value))


def _candidates(node: _Tree, leaf: type, depth: int) -> dict[str, _Tree]:
    """Mappings with tensors below a node, by path; not those within one with tensors."""
    found: dict[str, _Tree] = {}
    for key, child in node.items():
        if not isinstance(key, str) or not isinstance(child, Mapping) or _is_aside(key, child):
            continue
        if _has_leaves(child, leaf):
            found[key] = child
        elif depth > 1:
            below = _candidates(child, leaf, depth - 1)
            found.update({join_keys(key, path): inner for path, inner in below.items()})
    return found


def _is_aside(key: str, node: _Tree) -> bool:
    """Whether a mapping has tensors, if any, that nobody would warm-start from unasked."""
    kinds = {str(name).split(".", 1)[0] for name in node}  # flattened: "state.layer.exp_avg"
    return key.endswith(EXTRA_STATE) or kinds == {"state", "param_groups"}


def _has_leaves(node: Any, leaf: type) -> bool:
    return isinstance(node, Mapping) and any(_is_leaf(k, v, leaf) for k, v in node.items())


def _is_leaf(key: Any, value: Any, leaf: type) -> bool:
    return isinstance(key, str) and isinstance(value, leaf)


def _several(found: Mapping[str, _Tree], where: str, path: str, leaf: type) -> str:
    each = [f"entry={join_keys(path, below)!r}" for below in found][:3]
    return (
        f"{where} holds tensors in several entries: {_entries(found, path, leaf)}. Say which one "
        f"is meant: {' or '.join(each)}; entry={path!r} is all of them, their names behind their "
        "entries'."
    )


def _entries(found: Mapping[str, _Tree], path: str, leaf: type) -> str:
    entries = []
    for below, node in found.items():
        keys = [key for key, value in node.items() if _is_leaf(key, value, leaf)]
        first = f": {keys[0]!r}{', ...' if keys[1:] else ''}"
        entries.append(f"{join_keys(path, below)!r} ({plural(len(keys), 'tensor')}{first})")
    return listed(entries)


def _none(node: _Tree, where: str) -> str:
    if not node:
        return f"{where} is empty: there is no tensor to take."
    return f"{where} holds no tensor under a name of its own; {_keys_of(node)}.{_hint_below(node)}"


def _hint_below(node: _Tree) -> str:
    modules = [key for key, value in node.items() if isinstance(value, torch.nn.Module)]
    if modules:
        return f" Pass the module itself, under {modules[0]!r}."
    if any(isinstance(value, Mapping) for value in node.values()):
        return " entry='...' names a mapping further down, with '/' between the keys."
    return ""


def _keys_of(node: _Tree) -> str:
    keys = [repr(key) for key in node]
    return f"its keys are {listed(keys)}" if keys else "it is empty"
