"""Where a Keras file tells of its lookup layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch_warmstart.entries import LOOKUPS, Lookup
from torch_warmstart.formats.class_names import snake_case
from torch_warmstart.formats.keras.configs import LayerConfig, is_layer, kind_of, listed_configs

_DEEPEST = 100  # models within models


def lookups_in_folders(configs: Mapping[str, LayerConfig]) -> Iterator[Lookup]:
    """Those among the layers of an archive, by folder."""
    for folder, config in configs.items():
        if config.kind in LOOKUPS:
            yield Lookup(config.name, str(config.kind), config.options, folder)


def lookups_of_features(config: Any) -> Iterator[Lookup]:
    """Those of a `FeatureSpace` that was saved by itself, by the names of its features.

    (keras `layers/preprocessing/feature_space.py`.) It keeps them in one dict, whose folders are
    numbered by class, in the order of the features.
    """
    if kind_of(config) != "feature_space" or not isinstance(config["config"].get("features"), dict):
        return
    numbers: Counter[str] = Counter()
    for feature, said in config["config"]["features"].items():
        layer = said["config"].get("preprocessor") if is_layer(said) else None
        if not is_layer(layer):
            continue
        folder = snake_case(layer["class_name"])
        number, numbers[folder] = numbers[folder], numbers[folder] + 1
        if kind_of(layer) in LOOKUPS:
            path = f"preprocessors/{folder}{f'_{number}' if number else ''}"
            yield Lookup(feature, kind_of(layer), layer["config"], path)


def lookups_in_model(model: Any, depth: int = 0) -> Iterator[Lookup]:
    """Those that a model's configuration lists, and the models in it."""
    for layer in listed_configs(model) if depth < _DEEPEST else ():
        kind, options = kind_of(layer), layer["config"] if is_layer(layer) else {}
        if kind in LOOKUPS and isinstance(options.get("name"), str):
            yield Lookup(options["name"], kind, options)
        yield from lookups_in_model(layer, depth + 1)
