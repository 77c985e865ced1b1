"""What a `config.json` says of the layers of a `.keras` file, by their folders.

A list of layers is written as folders called by the layers' classes: `dense`, `dense_1`. Which is
which follows from their order, which the configuration has too. A layer that is in two lists is
written once, and whether it takes a number in the second depends on Keras's version (keras
`saving/saving_lib.py` counts it, tf_keras's does not). So the folders of a class are taken for the
listed layers only if there are exactly as many, with just these numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from torch_warmstart.formats.class_names import class_of, snake_case
from torch_warmstart.formats.keras.hdf5 import Tree
from torch_warmstart.values import frozen

LISTS = ("layers", "_layer_checkpoint_dependencies")  # what a Sequential or Functional lists
_MODULES = ("keras", "tf_keras")


@frozen
class LayerConfig:
    """What `config.json` says of a layer."""

    name: str
    kind: str | None  # its class in snake case; None: one of the user's own
    options: Mapping[str, Any]
    position: int = 0  # in the list of layers that it is in


# Layers within a layer, by its class: their attribute, what they are called in its configuration
# (the first that is there), and what Keras puts before their names.
_WITHIN: Mapping[str, Sequence[tuple[str, tuple[str, ...], str]]] = {
    "bidirectional": (
        ("forward_layer", ("layer",), "forward_"),
        ("backward_layer", ("backward_layer", "layer"), "backward_"),
    ),
    "rnn": (("cell", ("cell",), ""),),
    **dict.fromkeys(
        ("time_distributed", "spectral_normalization", "wrapper"), (("layer", ("layer",), ""),)
    ),
}
_CELLS = "cells"  # of a StackedRNNCells


def read_configs(config: Any, tree: Tree) -> dict[str, LayerConfig]:
    """The configurations of layers, by folder.

    Each folder of the file is looked at once, however often a configuration repeats itself.
    """
    groups = _groups_within(tree)
    configs: dict[str, LayerConfig] = {}
    todo = [found for found in _listed_layers(config, "", groups) if found[0] in tree.texts]
    while todo:
        folder, layer, prefix, position = todo.pop()
        options = layer["config"]
        kind = snake_case(layer["class_name"]) if _of_keras(layer) else None
        if isinstance(options.get("name"), str):
            name = prefix + options["name"].removeprefix(prefix)
            configs[folder] = LayerConfig(name, kind, options, position)
        within = (*_listed_layers(layer, folder, groups), *_layers_within(kind, options, folder))
        todo += [found for found in within if found[0] in tree.texts]
    return configs


# Folder, configuration, what Keras puts before the name, position in the list.
_Found = tuple[str, dict[str, Any], str, int]


def _listed_layers(
    model: Any, folder: str, groups: Mapping[str, Sequence[str]]
) -> Iterator[_Found]:
    """The layers that a model or a stack of cells lists."""
    options = model.get("config") if isinstance(model, dict) else None
    for key, lists in (("layers", LISTS), (_CELLS, (_CELLS,))):
        layers = options.get(key) if isinstance(options, dict) else None
        for listed in lists:
            path = f"{folder}/{listed}" if folder else listed
            if isinstance(layers, list) and path in groups:
                yield from _numbered(layers, path, groups[path])


def _numbered(layers: Sequence[Any], path: str, written: Sequence[str]) -> Iterator[_Found]:
    folders: dict[str, set[str]] = {}
    for name in written:
        folders.setdefault(class_of(name), set()).add(name)
    by_class: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for position, layer in enumerate(layers):
        if is_layer(layer):
            by_class.setdefault(snake_case(layer["class_name"]), []).append((position, layer))
    for unnumbered, found in by_class.items():
        names = [f"{unnumbered}_{n}" if n else unnumbered for n in range(len(found))]
        if set(names) == folders.get(unnumbered):
            for name, (position, layer) in zip(names, found, strict=True):
                yield f"{path}/{name}", layer, "", position


def _layers_within(kind: str | None, options: Mapping[str, Any], folder: str) -> Iterator[_Found]:
    for attribute, keys, prefix in _WITHIN.get(kind or "", ()):
        found = [layer for layer in map(options.get, keys) if is_layer(layer)]
        yield from ((f"{folder}/{attribute}", layer, prefix, 0) for layer in found[:1])


def is_layer(layer: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it is a layer's configuration; operations between layers have no folders."""
    return (
        isinstance(layer, dict)
        and isinstance(layer.get("class_name"), str)
        and isinstance(layer.get("config"), dict)
        and ".ops." not in str(layer.get("module"))
    )


def listed_configs(model: Any) -> list[Any]:
    """What a model's configuration lists as its layers."""
    options = model.get("config") if isinstance(model, dict) else None
    if isinstance(options, list):  # a Sequential of Keras 2.2 and before
        return options
    layers = options.get("layers") if isinstance(options, dict) else None
    return layers if isinstance(layers, list) else []


def with_activations(model: Any) -> Any:
    """A configuration in which layers of a Sequential have the activations of layers behind them.

    `Dense(4)` and `Activation("relu")` compute what `Dense(4, activation="relu")` does. In other
    models what is behind a layer is a matter of their graphs, which is not looked at.
    """
    try:
        return _with_activations(model)
    except RecursionError:  # models within models that nobody made
        return model


def _with_activations(model: Any) -> Any:
    layers = listed_configs(model)
    found = [_with_activations(layer) for layer in layers]
    if layers and model.get("class_name") == "Sequential":
        follower = None
        for at in range(len(found) - 1, -1, -1):
            found[at] = _activated(found[at], follower)
            follower = follower if _is_passed(found[at]) else found[at]
    if all(new is old for new, old in zip(found, layers, strict=True)):
        return model
    options = model["config"]
    return {**model, "config": {**options, "layers": found} if layers is not options else found}


def _activated(layer: Any, follower: Any) -> Any:
    if not is_layer(layer) or _ACTIVATED.fullmatch(snake_case(layer["class_name"])) is None:
        return layer
    options = layer["config"]
    activation = _activation_of(follower) if is_layer(follower) else None
    if activation is None or options.get("activation", "") not in (None, "linear"):
        return layer
    return {**layer, "config": {**options, "activation": activation}}


_ACTIVATED = re.compile(r"(einsum_)?dense|(depthwise_|separable_)?conv\dd(_transpose)?")
# Layers that are nothing but a function of theirs; keras/src/layers/activations/.
_FUNCTIONS = {"ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "Softmax", "UnitNormalization"}
_PASSED = re.compile(r"(spatial_)?dropout(\dd)?|flatten|activity_regularization")


def _is_passed(layer: Any) -> bool:
    return is_layer(layer) and _PASSED.fullmatch(snake_case(layer["class_name"])) is not None


def _activation_of(layer: Mapping[str, Any]) -> Any:
    """What a layer that is an activation is called, or itself; None for another one."""
    options, kind = layer["config"], layer["class_name"]
    if kind == "Activation":
        name = options.get("activation")
        return name if isinstance(name, str) and name != "linear" else None
    if kind == "ReLU" and not options.get("negative_slope") and not options.get("threshold"):
        most = options.get("max_value")
        if most is None or most == 6:
            return "relu" if most is None else "relu6"
    if kind == "Softmax" and options.get("axis") == -1:
        return "softmax"
    return layer if kind in _FUNCTIONS else None


def kind_of(layer: Any) -> str:
    """The class in snake case of a layer's configuration, as folders are called; "" without one.

    Before Keras 2.13 or so a configuration does not say whose a class is.
    """
    if not is_layer(layer) or ("module" in layer and not _of_keras(layer)):
        return ""
    return snake_case(layer["class_name"])


def _groups_within(tree: Tree) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path in tree.texts:
        parent, _, name = path.rpartition("/")
        groups.setdefault(parent, []).append(name)
    return groups


def _of_keras(layer: Mapping[str, Any]) -> bool:
    module = layer.get("module")
    return isinstance(module, str) and module.split(".")[0] in _MODULES
