"""Which tensors of a checkpoint answer to a name, by every spelling that it may have there.

torch's wrappers put something before a name, TensorFlow's savers something behind it, and
object-based checkpoints have names and paths besides their keys.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

from torch_warmstart.formats import OBJECT_GRAPH_KEY, Checkpoint, TensorSpec
from torch_warmstart.layouts import read_leaf
from torch_warmstart.names.conventions import Conventions, bare_name
from torch_warmstart.names.index import NameIndex


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

        `:0` and `.` for `/` are forgiven.
        """
        slashed = name.replace(".", "/")
        spellings = (name, name.removesuffix(":0"), slashed, name.replace("/", "."))
        for spelling in dict.fromkeys(spellings):
            is_key = self._get(spelling) is not None
            keys = (spelling,) if is_key else self._checkpoint.keys_of(spelling)
            if keys:
                return keys
        return ()

    def one(self, name: str) -> str | None:
        """The only key of exactly this name, if there is one."""
        keys = (name,) if name in self._keys else self._checkpoint.keys_of(name)
        return keys[0] if len(keys) == 1 else None

    def in_layer(self, path: str, name: str) -> Iterator[str]:
        """The keys of a tensor of a layer, by the layer's path and its name in it."""
        leaf = read_leaf(name)
        layer = leaf.layer_in(path)
        if layer is None:
            return
        if leaf.is_pattern and self._conventions.has_own_layers:
            slashed = layer.replace(".", "/")
            yield from self._known(self.index.matching(slashed, leaf.name))
            yield from self._checkpoint.keys_like(f"{slashed}/{leaf.name}".removeprefix("/"))
        elif self._has_other_names or _slashed(layer, leaf.name) in self._bare_keys:
            for candidate in self._conventions.spellings(layer, leaf.name):
                if candidate in self._keys:
                    yield candidate
                yield from self._checkpoint.keys_of(candidate)

    def in_a_scope(self, path: str, name: str) -> Iterator[str]:
        """As `in_layer`, with exactly one more scope before the path."""
        leaf = read_leaf(name)
        layer = leaf.layer_in(path)
        if layer:
            slashed = layer.replace(".", "/")
            yield from self._known(self.index.in_a_scope(slashed, leaf.name))
            yield from self._checkpoint.keys_like(f"{slashed}/{leaf.name}", in_a_scope=True)

    def layers_of(self, key: str, names: Iterable[str]) -> list[str]:
        """The paths of the layer in which a key has one of these names: `in_layer` backwards."""
        leaves = [read_leaf(name) for name in names if name]  # a table called as its layer: none
        called = (bare_name(key), *self._full_names.get(key, ()))
        found = (leaf.layer_of(name) for name in called for leaf in leaves)
        return list(dict.fromkeys(layer for layer in found if layer is not None))

    @functools.cached_property
    def _full_names(self) -> dict[str, list[str]]:
        """The other names of each key that has any."""
        found: dict[str, list[str]] = {}
        for name, keys in self._checkpoint.full_names().items():
            for key in keys:
                found.setdefault(key, []).append(name)
        return found

    def _get(self, key: str) -> TensorSpec | None:
        if key not in self._specs:
            self._specs[key] = self._checkpoint.get(key)
        return self._specs[key]

    @functools.cached_property
    def _keys(self) -> frozenset[str]:
        """To ask for a key here costs a tenth of what it costs in a checkpoint's own index."""
        return frozenset(self._checkpoint)

    @functools.cached_property
    def _bare_keys(self) -> frozenset[str]:
        """The keys with slashes, and also without what may stand before or behind a name.

        Most names that are looked for are in no spelling there; this tells it at once.
        """
        return frozenset(bare for key in self._keys for bare in self._conventions.bare(key))

    @functools.cached_property
    def _has_other_names(self) -> bool:
        return OBJECT_GRAPH_KEY in self._keys or bool(self._checkpoint.full_names())

    def _known(self, names: Iterator[str]) -> Iterator[str]:
        """The keys of names that the index has."""
        for name in names:
            yield from (name,) if name in self._keys else self._checkpoint.keys_of(name)


def _slashed(path: str, name: str) -> str:
    joined = f"{path}/{name}" if path and name else path or name
    return joined.replace(".", "/")
