"""The layers of a Keras 3 file: its folders with variables, and which class of layer each is.

A layer's class is its folder's name in a list of layers (`layers/dense_1` is a Dense). In a layer
of Keras it is the outer layer's business; elsewhere a layer is known by the attributes it has, or
not at all. Its own name stands beside it since Keras 3.7 or so, and in the `config.json` of a
`.keras` file.

Source: keras and tf_keras `saving/saving_lib.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_warmstart.formats.class_names import class_of
from torch_warmstart.formats.keras.configs import LayerConfig
from torch_warmstart.formats.keras.hdf5 import Dataset, Tree
from torch_warmstart.formats.keras.layers import (
    EVERYWHERE,
    LAYERS,
    SIGNATURES,
    Inner,
    Layer,
    Leaf,
    find_leaves,
)

VARS = "vars"
_MAX_DIGITS = 9  # of a variable's number


@dataclass(slots=True)
class LayerFolder:
    """A folder that has a layer's variables, and what is known of the layer."""

    folder: str
    parent: LayerFolder | None  # the layer around it
    steps: tuple[str, ...]  # from there: an attribute, or a list and what it is called in there
    variables: list[Dataset] = field(default_factory=list)
    attributes: set[str] = field(default_factory=set)
    config: LayerConfig | None = None
    written_name: str | None = None
    kind: str | None = None  # the layer's class, in snake case
    leaves: list[Leaf | None] = field(default_factory=list)  # which each of the variables is

    @property
    def is_listed(self) -> bool:
        return len(self.steps) > 1

    @property
    def inner(self) -> Inner | None:
        """What the layer around it says of it."""
        if self.parent is None or self.is_listed:
            return None
        layer = LAYERS.get(self.parent.kind or "")
        found = layer.inner.get(self.steps[0]) if layer else None
        return found or EVERYWHERE.get(self.steps[0])

    @property
    def name(self) -> str | None:
        """The layer's own name."""
        if self.written_name or self.config is not None:
            return self.written_name or (self.config.name if self.config else None)
        return (self.inner.name if self.inner else "") or None

    @property
    def is_left_out(self) -> bool:
        """Whether names of variables may go without this layer's."""
        layer = LAYERS.get(self.parent.kind or "") if self.parent else None
        return bool(layer and layer.is_transparent and not self.is_listed)


def layer_folders(tree: Tree, configs: Mapping[str, LayerConfig]) -> list[LayerFolder]:
    """All layers of a file, outer ones first; the first is the model."""
    folders = {"": LayerFolder("", None, ())}  # the model, which may have no folder
    groups = [group for group in tree.texts if group.endswith(f"/{VARS}")]
    for folder in sorted(group.removesuffix(f"/{VARS}") for group in groups):
        parent = _around(folder, folders)
        steps = folder.removeprefix(parent.folder).strip("/").split("/")
        layer = LayerFolder(folder, parent, tuple(steps))
        layer.written_name = next(iter(tree.texts[f"{folder}/{VARS}"].get("name", ())), None)
        layer.config = _that_fits(configs.get(folder), layer)
        parent.attributes.add(steps[0])
        folders[folder] = layer
    for dataset in tree.datasets:
        folder, _, number = dataset.path.rpartition("/")
        is_number = number.isdecimal() and len(number) <= _MAX_DIGITS
        if is_number and folder.rpartition("/")[2] == VARS:
            folders[folder.removesuffix(VARS).rstrip("/")].variables.append(dataset)
    for layer in folders.values():
        layer.variables.sort(key=number_of)
        layer.kind = _kind(layer)
        layer.leaves = _leaves(layer)
    return list(folders.values())


def _around(folder: str, folders: Mapping[str, LayerFolder]) -> LayerFolder:
    while folder not in folders:
        folder = folder.rpartition("/")[0]
    return folders[folder]


def _that_fits(config: LayerConfig | None, layer: LayerFolder) -> LayerConfig | None:
    """The configuration, unless it is another layer's."""
    other = config and layer.written_name and config.name != layer.written_name
    return None if other else config


def _kind(layer: LayerFolder) -> str | None:
    """The class of a layer, whose outer layers' are known, if it can be known."""
    if layer.parent is None:
        return None
    if layer.config is not None:
        return layer.config.kind
    if layer.is_listed:  # folders are called by their classes
        kind = class_of(layer.steps[-1])
        return kind if kind in LAYERS else _by_signature(layer)
    if layer.inner is None:
        return _by_signature(layer)
    if layer.inner.kind:
        return layer.inner.kind
    by_name = class_of(layer.written_name or "")  # what Keras calls a layer without a name
    return by_name if by_name in LAYERS else _by_signature(layer) or layer.inner.otherwise or None


def _leaves(layer: LayerFolder) -> list[Leaf | None]:
    options = layer.config.options if layer.config else None
    return find_leaves(LAYERS.get(layer.kind or "", Layer()), layer.variables, options)


def _by_signature(layer: LayerFolder) -> str | None:
    return next((kind for needed, kind in SIGNATURES if needed <= layer.attributes), None)


def number_of(dataset: Dataset) -> int:
    """A variable's number in its layer."""
    return int(dataset.path.rpartition("/")[2])
