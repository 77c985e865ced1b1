"""Which tensors of a checkpoint answer to a name, by every spelling that it may have there.

torch's wrappers put something into a name, TensorFlow's savers something behind it, and
object-based checkpoints have names and paths besides their keys. Where a tensor lies in a file
(`layers/dense_1/vars/0`, `variables/48`) is no name: it answers only to a user who wrote it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from torch_warmstart.formats import OBJECT_GRAPH_KEY, Checkpoint, NameKind, TensorSpec
from torch_warmstart.layouts import LeafName, read_leaf
from torch_warmstart.names.conventions import Conventions, bare_name, plain_name
from torch_warmstart.names.index import NameIndex

_KINDS: tuple[NameKind, ...] = get_args(NameKind)
Kinds = Sequence[NameKind]
OWN: Kinds = ("own",)
SHORT: Kinds = ("short",)
ANY_KIND: Kinds = _KINDS  # those that say more come first
NUMBERED = "/vars/"  # behind the folder of a layer, in files of Keras 3


class Spellings:
    """The keys of one checkpoint, by names."""

    def __init__(self, checkpoint: Checkpoint, conventions: Conventions) -> None:
        self._checkpoint = checkpoint
        self._conventions = conventions
        self._specs: dict[str, TensorSpec | None] = {}  # of keys that were asked for

    @functools.cached_property
    def index(self) -> NameIndex:
        """All names of the checkpoint."""
        return NameIndex([*self._checkpoint, *self._checkpoint.full_names()])

    def spec(self, key: str) -> TensorSpec:
        """The tensor of a key that is there."""
        spec = self._get(key)
        return self._checkpoint.spec(key) if spec is None else spec

    def given(self, name: str) -> tuple[str, ...]:
        """The keys that a name means which a user wrote; several if it is ambiguous.

        `:0` and `.` for `/` are forgiven, and what wrappers put into names.
        """
        slashed = name.replace(".", "/")
        spellings = (name, name.removesuffix(":0"), slashed, name.replace("/", "."))
        for spelling in dict.fromkeys(spellings):
            is_key = self._get(spelling) is not None
            keys = (spelling,) if is_key else self._checkpoint.keys_of(spelling)
            if keys:
                return keys
        return tuple(self._known(self.index.called(plain_name(name))))

    def one(self, name: str, kinds: Kinds) -> str | None:
        """The only key of exactly this name, if there is one."""
        if self._checkpoint.name_kind(name) not in kinds:
            return None
        keys = (name,) if name in self.keys else self._checkpoint.keys_of(name)
        return keys[0] if len(keys) == 1 else None

    def in_layer(self, path: str, name: str, kinds: Kinds = OWN) -> Sequence[str]:
        """The keys of a tensor of a layer, by the layer's path and its name in it.

        Of several kinds of names, the first by which there are any.
        """
        leaf = read_leaf(name)
        layer = leaf.layer_in(path) if self._may_have(leaf) else None
        if layer is None:
            return ()
        for kind in kinds:
            found = tuple(self._in_layer(layer, leaf, kind))
            if found:
                return found
        return ()

    def in_a_scope(self, path: str, name: str) -> Iterator[tuple[str, str]]:
        """As `in_layer`, with exactly one more scope before the path: that scope, and the key."""
        leaf = read_leaf(name)
        layer = leaf.layer_in(path)
        if not layer:
            return
        slashed = layer.replace(".", "/")
        for other in self._named("own").in_a_scope(slashed, leaf.name):
            for key in self._known((other,)):
                yield plain_name(other).partition("/")[0], key
        pattern = f"{slashed}/{leaf.name}"
        if self._checkpoint.keys_like(pattern, in_a_scope=True):
            for scope in self._checkpoint.scopes():
                for key in self._checkpoint.keys_like(f"{scope}/{pattern}"):
                    yield scope, key

    def layers_of(self, key: str, names: Iterable[str]) -> list[str]:
        """The paths of the layer in which a key has one of these names: `in_layer` backwards."""
        leaves = [read_leaf(name) for name in names if name]  # a table called as its layer: none
        called = (bare_name(key), key.replace(".", "/"), *self._full_names.get(key, ()))
        found = (leaf.layer_of(name) for name in called for leaf in leaves)
        return list(dict.fromkeys(layer for layer in found if layer is not None))

    def ending_in(self, ending: str) -> Sequence[str]:
        """What tensors are called that ends in these parts."""
        return self._named("own").ending_in(ending)

    def near_names(self, name: str) -> list[str]:
        """What tensors are called that looks like a name."""
        return self._named("own").near(name) or self._named("short").near(name)

    def without_a_name(self, but: Iterable[str]) -> str | None:
        """The first name that only says where a tensor lies of which nothing else is known.

        Of some keys enough is known: variables are made of them, by rules.
        """
        named = {key for kind in ("own", "short") for key in self._known(self._named(kind).names)}
        named.update(but)
        # What is saved twice (`variables/0`, `_all_variables/0`) has a name under one key alone.
        kind_of = self._checkpoint.name_kind
        for key, names in self._full_names.items():
            if any(kind_of(name) != "storage" for name in names):
                named.add(key)
        stored = (name for name in self._named("storage").names if "optimizer" not in name)
        return next((n for n in stored if named.isdisjoint(self._known((n,)))), None)

    def may_have(self, name: str) -> bool:
        """Whether any layer has a tensor of such a name: most forms of one are nowhere."""
        return self._may_have(read_leaf(name))

    def _may_have(self, leaf: LeafName) -> bool:
        if leaf.is_pattern or not leaf.name or self._has_other_names:
            return True
        return self.index.has_ending(_plain_leaf(leaf.name))

    def _in_layer(self, layer: str, leaf: LeafName, kind: NameKind) -> Iterator[str]:
        index = self._named(kind)
        if leaf.is_pattern and self._conventions.has_own_layers:
            slashed = layer.replace(".", "/")
            yield from self._known(index.matching(slashed, leaf.name))
            path = f"{slashed}/{leaf.name}".removeprefix("/")
            if self._checkpoint.name_kind(path) == kind:
                yield from self._checkpoint.keys_like(path)
            return
        plain = "/".join(filter(None, (_plain_path(layer), _plain_leaf(leaf.name))))
        for front in self._fronts:
            yield from self._known(index.called(front + plain))
        if self._has_other_names:
            for candidate in self._conventions.spellings(layer, leaf.name):
                if self._checkpoint.name_kind(candidate) == kind:
                    yield from self._checkpoint.keys_of(candidate)

    def _named(self, kind: NameKind) -> NameIndex:
        """The names of a kind."""
        return self._by_kind[kind]

    @functools.cached_property
    def _by_kind(self) -> dict[NameKind, NameIndex]:
        kinds: dict[NameKind, list[str]] = {kind: [] for kind in _KINDS}
        for name in self.index.names:
            kinds[self._checkpoint.name_kind(name)].append(name)
        if len(kinds["own"]) == len(self.index.names):
            return {"own": self.index, "short": NameIndex(()), "storage": NameIndex(())}
        return {kind: NameIndex(names) for kind, names in kinds.items()}

    @functools.cached_property
    def _fronts(self) -> tuple[str, ...]:
        """What stands in front of all names here, counts of steps aside; "" is among them."""
        collections = self._conventions.collections
        if collections and self._are_in_front(collections):
            return ("", *collections)
        fronts = self._conventions.fronts
        return ("", *(front for front in fronts if self._are_in_front((front,))))

    def _are_in_front(self, fronts: tuple[str, ...]) -> bool:
        """Whether each name has one of these in front, and each of these is one's."""
        words = [front.partition("/")[0] for front in fronts]
        if not all(any(word in key for key in self.keys) for word in words):  # at a glance
            return False
        plain = {key: plain_name(key) for key in self.keys}
        others = [key for key, name in plain.items() if not name.startswith(fronts)]
        used = (any(name.startswith(front) for name in plain.values()) for front in fronts)
        return all(used) and all(map(self._is_count, others))

    def _is_count(self, key: str) -> bool:
        spec = self.spec(key)
        return not spec.shape and spec.dtype is not None and not spec.dtype.is_floating_point

    @functools.cached_property
    def _full_names(self) -> dict[str, list[str]]:
        return other_names(self._checkpoint)

    def _get(self, key: str) -> TensorSpec | None:
        if key not in self._specs:
            self._specs[key] = self._checkpoint.get(key)
        return self._specs[key]

    @functools.cached_property
    def keys(self) -> frozenset[str]:
        """To ask for a key here costs a tenth of what it costs in a checkpoint's own index."""
        return frozenset(self._checkpoint)

    @functools.cached_property
    def has_numbers(self) -> bool:
        """Whether layers' tensors are numbered, as in files of Keras 3."""
        return any(NUMBERED in key for key in self.keys)

    @functools.cached_property
    def _has_other_names(self) -> bool:
        return OBJECT_GRAPH_KEY in self.keys or bool(self._checkpoint.full_names())

    def _known(self, names: Iterable[str]) -> Iterator[str]:
        """The keys of names that the index has."""
        for name in names:
            yield from (name,) if name in self.keys else self._checkpoint.keys_of(name)


def other_names(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """The other names of each key that has any."""
    found: dict[str, list[str]] = {}
    for name, keys in checkpoint.full_names().items():
        for key in keys:
            found.setdefault(key, []).append(name)
    return found


@functools.lru_cache(maxsize=4096)
def _plain_path(path: str) -> str:
    """The same for the names of a layer's tensors, which are asked for one after the other."""
    return plain_name(f"{path}/").removesuffix("/")


@functools.lru_cache(maxsize=4096)
def _plain_leaf(name: str) -> str:
    """A tensor's name in its layer, as keys are compared: a parameter may be called `user:0`."""
    return _plain_path(name).removesuffix(":0")
