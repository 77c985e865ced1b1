"""The layers of a Keras file as values: class, configuration, and which tensors are of which.

Files of Keras 3 have a folder for each layer. Those of Keras 2 have a group for each layer of the
model, and in a whole model's the configuration of all of them; a model within a model is one group,
whose tensors are called by their layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch_warmstart.formats.base import SavedLayer
from torch_warmstart.formats.class_names import OTHER, lookalike_by_name, product_by_name
from torch_warmstart.formats.keras.configs import is_layer, kind_of, listed_configs
from torch_warmstart.formats.keras.folders import LayerFolder
from torch_warmstart.values import frozen

Layers = Mapping[str, SavedLayer]  # by key of a tensor

_OF_TRANSFORMERS = re.compile(r"\w+_\._\d+|tf_?\w+_(model|for_\w+|main_layer)(_\d+)?")


def keras3_layers(folders: Sequence[LayerFolder], keys: Mapping[str, str]) -> Layers:
    """The innermost layer of each tensor in a file with `vars` folders.

    Args:
        folders: The layers, outer ones first, the model the first of all.
        keys: Of the tensors, by their paths in the file.
    """
    own = {
        each.folder: [
            keys[dataset.path]
            for dataset, leaf in zip(each.variables, each.leaves, strict=True)
            if leaf is None or leaf.name  # without one it is what a layer within has, once more
        ]
        for each in folders
    }
    within: dict[str, list[str]] = {folder: list(found) for folder, found in own.items()}
    for each in reversed(folders):
        if each.parent is not None:
            within[each.parent.folder] += within[each.folder]
    made: dict[str, SavedLayer | None] = {"": None}
    for each in folders:
        if each.parent is not None:
            made[each.folder] = SavedLayer(
                each.name or each.folder,
                each.kind or "",
                each.config.options if each.config is not None else None,
                tuple(within[each.folder]),
                made[each.parent.folder],
            )
    found = ((key, made[folder]) for folder, listed in own.items() for key in listed)
    return {key: layer for key, layer in found if layer is not None}


@frozen
class Writer:
    """What wrote a file of Keras 2, as far as it says."""

    backend: str = ""  # what Keras ran on
    version: str = ""  # of Keras

    @property
    def has_einsum(self) -> bool:
        """Whether it may have written an EinsumDense, which came with Keras 2.4."""
        numbers = re.match(r"(\d{1,4})\.(\d{1,4})", self.version)
        return numbers is None or tuple(map(int, numbers.groups())) >= (2, 4)


def keras2_layers(
    weights: Iterable[tuple[str, str]], config: Any, writer: Writer, keys: Mapping[str, str]
) -> Layers:
    """The layer of each tensor in a file with `weight_names`.

    Args:
        weights: Path in the file and name of the layer of each tensor.
        config: The model's configuration, if the file has one.
        writer: What wrote the file.
        keys: Of the tensors, by their paths.
    """
    of_layer: dict[tuple[str, ...], list[str]] = {}
    options: dict[tuple[str, ...], dict[str, Any]] = {}
    for path, layer in weights:
        found = list(_layers_along(config, layer, path))
        place = (layer, *(name for name, _ in found[1:]))
        of_layer.setdefault(place, []).append(keys[path])
        options.setdefault(place, found[-1][1] if found else {})
    made: dict[str, SavedLayer] = {}
    for place, listed in of_layer.items():
        known = options[place]
        saved = SavedLayer(
            "/".join(place),
            kind_of(known),
            known.get("config"),
            tuple(listed),
            backend=writer.backend,
        )
        made |= dict.fromkeys(listed, saved)
    for path, _ in weights:
        known_as = made[keys[path]]
        if not known_as.kind and (kind := _kind_by_path(path, writer)):
            made[keys[path]] = replace(known_as, kind=kind)
    return made


def _kind_by_path(path: str, writer: Writer) -> str:
    """What is known of a tensor's layer without a configuration: by its name, or who wrote it.

    transformers makes its models of Dense layers alone; it calls the members of a list `layer_._0`,
    and models `tf_bert_model`.
    """
    folders = path.split("/")[:-1]
    if folders and (kind := lookalike_by_name(folders[-1])):
        return kind
    if any(map(_OF_TRANSFORMERS.fullmatch, folders)) or not writer.has_einsum:
        return OTHER
    return product_by_name(folders[-1]) if folders else ""


def _layers_along(model: Any, layer: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The configurations of a layer, and of those in it that a path goes through, if it is a model.

    Of a model in it that lists two layers of one name neither is known.
    """
    configs = _by_name(model)
    if layer not in configs:
        return
    found = configs[layer]
    yield layer, found
    behind = path.split(f"{layer}/", 1)[-1].split("/")
    while (inside := _by_name(found)) and (name := next(filter(inside.get, behind), None)):
        found = inside[name]
        yield name, found


def _by_name(model: Any) -> dict[str, dict[str, Any]]:
    """The layers that a model lists, by name; those of one name are left out."""
    found: dict[str, dict[str, Any]] = {}
    twice: set[str] = set()
    for layer in listed_configs(model):
        name = layer["config"].get("name") if is_layer(layer) else None
        if isinstance(name, str):
            twice |= {name} & found.keys()
            found[name] = layer
    return {name: layer for name, layer in found.items() if name not in twice}
