"""What Keras calls the tensors of its files.

Keras 2 writes a variable's name beside each tensor (`weight_names`). Keras 3 numbers a layer's
variables, `layers/dense/vars/0`, in the order in which the layer makes them. Which is which follows
from the layer's class and from how many there are; where several answers fit, none is given.

Layers are called by their own names. Without these, a folder's path is the name.

Source: keras `legacy/saving/legacy_h5_format.py`, and the layers' `path`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from torch_warmstart.formats.keras.configs import LISTS
from torch_warmstart.formats.keras.folders import VARS, LayerFolder, number_of
from torch_warmstart.formats.keras.hdf5 import Texts, Tree
from torch_warmstart.formats.keras.layers import LAYERS
from torch_warmstart.values import frozen

# Attributes that Keras writes of a file or a layer; long lists are numbered: `weight_names0`, ...
_MARKS = frozenset({"keras_version", "layer_names", "model_config", "nb_layers", "weight_names"})
_MODEL_WEIGHTS = "model_weights/"  # of a whole model in a Keras 2 file
_NO_LAYERS = ("optimizer",)  # of a model


@frozen
class OtherNames:
    """What a tensor is called besides its key."""

    own: Sequence[str] = ()
    short: Sequence[str] = ()  # without the models it is in; its own unless another has it as such
    storage: Sequence[str] = ()  # only where it lies, by the classes and numbers of layers


def is_of_keras(tree: Tree) -> bool:
    """Whether Keras wrote a file, which says so of its layers or keeps variables in `vars`."""
    said = {name.rstrip("0123456789") for texts in tree.texts.values() for name in texts}
    return bool(said & _MARKS) or any(VARS in dataset.path.split("/") for dataset in tree.datasets)


# -- Keras 2 -----------------------------------------------------------------------------------


def keras2_names(tree: Tree) -> tuple[dict[str, str], dict[str, OtherNames]]:
    """Keys by the path of a dataset, and other names by path, of a file with `weight_names`."""
    weights = list(keras2_weights(tree))
    keys: dict[str, str] = {}
    others: dict[str, OtherNames] = {}
    counts: dict[str, int] = {}
    for _, _, weight in weights:
        counts[weight] = counts.get(weight, 0) + 1
    for path, layer, weight in weights:
        # Layers shared between models are written twice; some versions write `kernel` only.
        keys[path] = weight if counts[weight] == 1 else path.removesuffix(":0")
        full = _from_layer(layer, weight)
        own = [full] if full != keys[path] else []
        is_short = full.endswith(f"/{weight}")  # a key may be
        others[path] = OtherNames(own, [weight] if is_short or weight != keys[path] else [])
    return keys, others


def keras2_weights(tree: Tree) -> Iterator[tuple[str, str, str]]:
    """Path, name of the layer, and name of the variable for each weight."""
    paths = {dataset.path for dataset in tree.datasets}
    for group, texts in tree.texts.items():
        for name in _listed(texts, "weight_names"):
            path = f"{group}/{name}" if group else name
            if path in paths and group.rstrip("/") != "optimizer_weights":
                yield path, group.removeprefix(_MODEL_WEIGHTS), name.removesuffix(":0")


def _from_layer(layer: str, weight: str) -> str:
    """A variable's name from its layer's on: `seq/den/kernel` of `den` is `den/kernel`.

    A model within a model is a layer, whose variables' names do not have its own in front.
    """
    _, found, behind = f"/{weight}".rpartition(f"/{layer}/")
    return f"{layer}/{behind}" if found else f"{layer}/{weight}"


def _listed(texts: Texts, name: str) -> list[str]:
    """A list of strings; long ones are cut into attributes `name0`, `name1`, ..."""
    if name in texts:
        return texts[name]
    found: list[str] = []
    for number in itertools.count():
        if f"{name}{number}" not in texts:
            return found
        found += texts[f"{name}{number}"]
    raise AssertionError("itertools.count() ends")


# -- Keras 3 -----------------------------------------------------------------------------------


def keras3_names(folders: Sequence[LayerFolder]) -> dict[str, OtherNames]:
    """Names by the path of a dataset, of a file with `vars` folders."""
    names: dict[str, OtherNames] = {}
    for layer in folders:
        if layer.kind in LAYERS:
            found = [leaf.names if leaf else () for leaf in layer.leaves]
            paths = [*_paths(layer), layer.folder]
        else:
            found = [(f"{VARS}/{number_of(dataset)}",) for dataset in layer.variables]
            paths = _paths(layer) if _may_be_known_by_others(layer) else []
        own = [path for path in paths if path not in _storage_paths(layer)]
        stored = [path for path in paths if path in _storage_paths(layer)]
        kinds = (own, _short_paths(layer) if paths else [], stored)
        for dataset, leaves in zip(layer.variables, found, strict=True):
            called = ([f"{path}/{leaf}" for path in kind for leaf in leaves] for kind in kinds)
            names[dataset.path] = OtherNames(*called)
    return names


def storage_keys(folders: Sequence[LayerFolder]) -> frozenset[str]:
    """The paths of datasets in folders that are called by classes and numbers of layers."""
    return frozenset(
        dataset.path
        for layer in folders
        if layer.folder in _storage_paths(layer)
        for dataset in layer.variables
    )


def _storage_paths(layer: LayerFolder) -> tuple[str, ...]:
    """Of the paths to a layer those that say only where it lies.

    Folders in a list are called by the classes of layers and numbered, except in layers of Keras's
    own, whose lists have an order. By attributes such a layer can only be named by its own name.
    """
    listed = [each for each in _chain(layer) if each.is_listed and not _is_in_keras(each)]
    if not listed:
        return ()
    return (layer.folder,) if all(each.name for each in listed) else (layer.folder, _mixed(layer))


def _may_be_known_by_others(layer: LayerFolder) -> bool:
    """Whether it is an attribute: whoever knows its class can still find it by its name."""
    return layer.parent is not None and not layer.is_listed and layer.steps[0] not in _NO_LAYERS


def _paths(layer: LayerFolder) -> list[str]:
    """What a layer may be called: by names, and by names and attributes.

    By names only if all of them are known. Its folder is not among them.
    """
    names = (*_by_names(_chain(layer)), _mixed(layer))
    return [path for path in dict.fromkeys(names) if path != layer.folder]


def _mixed(layer: LayerFolder) -> str:
    """By names and attributes."""
    return "/".join(part for each in _chain(layer) for part in _by_attribute(each))


def _short_paths(layer: LayerFolder) -> list[str]:
    """What Keras calls a layer of a model within a model: by names without the models'."""
    chain = _chain(layer)
    start = max((at for at, layer in enumerate(chain) if layer.steps[0] in LISTS), default=0)
    return list(dict.fromkeys(_by_names(chain[start:]))) if start else []


def _by_names(chain: Sequence[LayerFolder]) -> Iterator[str]:
    """With the names of layers in transparent ones, and without."""
    for layers in (chain, [layer for layer in chain if not layer.is_left_out]):
        names = [layer.name for layer in layers]
        if names and None not in names:
            yield "/".join(filter(None, names))


def _by_attribute(layer: LayerFolder) -> tuple[str, ...]:
    """A layer's attribute in the one around it; of one that a model lists, its own name."""
    listed_name = layer.name if layer.is_listed and not _is_in_keras(layer) else None
    return (listed_name,) if listed_name else layer.steps


def _is_in_keras(layer: LayerFolder) -> bool:
    """Whether the layer around it is one of Keras's own."""
    return layer.parent is not None and layer.parent.kind in LAYERS


def _chain(layer: LayerFolder) -> Sequence[LayerFolder]:
    """The layer and those around it, outermost first, without the model."""
    chain: list[LayerFolder] = []
    while layer.parent is not None:
        chain.insert(0, layer)
        layer = layer.parent
    return chain
