"""What Keras calls the tensors of its files.

Keras 2 writes a variable's name beside each tensor (`weight_names`). Keras 3 numbers a layer's
variables, `layers/dense/vars/0`, in the order in which the layer makes them. Which is which follows
from the layer's class and from how many there are; where several answers fit, none is given.

A layer's class is its folder's name in a list of layers (`layers/dense_1` is a Dense) and the
parent's business elsewhere. Its own name stands beside it since Keras 3.7 or so, and in the
`config.json` of a `.keras` file. Without either, its folder's path is the name.

Source: keras `saving/saving_lib.py`, `legacy/saving/legacy_h5_format.py`, and the layers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch_warmstart.formats.hdf5 import Dataset, Texts, Tree

_VARS = "vars"
_LISTS = ("layers", "_layer_checkpoint_dependencies")  # what a Sequential or Functional lists
_MODELS = ("Sequential", "Functional", "Model")
_MODEL_WEIGHTS = "model_weights/"  # of a whole model in a Keras 2 file
_MAX_DEPTH = 100  # models in models of a config.json


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A variable of a layer."""

    name: str
    rank: int | None = None  # None: any
    option: str | None = None  # of the layer's config; without it there is no such variable


@dataclass(frozen=True, slots=True)
class _Layer:
    """A class of layers: its variables in order, and the layers that are attributes of it."""

    leaves: tuple[_Leaf, ...] = ()
    inner: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # attribute: class, name


_BIAS = _Leaf("bias", 1, "use_bias")
_GAMMA, _BETA = _Leaf("gamma", None, "scale"), _Leaf("beta", None, "center")
_KERNEL_AND_BIAS = _Layer((_Leaf("kernel"), _BIAS))
_NORM = _Layer((_GAMMA, _BETA))
_CELL = _Layer((_Leaf("kernel", 2), _Leaf("recurrent_kernel", 2), _Leaf("bias", None, "use_bias")))
_ATTENTION = {
    "query_dense": ("einsum_dense", "query"),
    "key_dense": ("einsum_dense", "key"),
    "value_dense": ("einsum_dense", "value"),
    "output_dense": ("einsum_dense", "attention_output"),
}
_CONVOLUTIONS = [f"conv{rank}d{kind}" for rank in (1, 2, 3) for kind in ("", "_transpose")]

# By the folder's name, which is the class's in snake case.
_LAYERS: Mapping[str, _Layer] = {
    "dense": _Layer((_Leaf("kernel", 2), _BIAS)),
    "einsum_dense": _Layer((_Leaf("kernel"), _Leaf("bias", None, "bias_axes"))),
    "embedding": _Layer((_Leaf("embeddings", 2),)),
    "batch_normalization": _Layer(
        (_GAMMA, _BETA, _Leaf("moving_mean", 1), _Leaf("moving_variance", 1))
    ),
    "layer_normalization": _NORM,
    "group_normalization": _NORM,
    "p_re_lu": _Layer((_Leaf("alpha"),)),
    **dict.fromkeys(_CONVOLUTIONS, _KERNEL_AND_BIAS),
    **{
        f"separable_conv{rank}d": _Layer(
            (_Leaf("depthwise_kernel"), _Leaf("pointwise_kernel"), _BIAS)
        )
        for rank in (1, 2)
    },
    **{
        name: _Layer(inner={"cell": (f"{name}_cell", f"{name}_cell")})
        for name in ("lstm", "gru", "simple_rnn")
    },
    **dict.fromkeys(("lstm_cell", "gru_cell", "simple_rnn_cell"), _CELL),
    "multi_head_attention": _Layer(inner=_ATTENTION),
}


# -- Keras 2 -----------------------------------------------------------------------------------


def keras2_names(tree: Tree) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Keys by the path of a dataset, and other names by path, of a file with `weight_names`."""
    weights = list(_keras2_weights(tree))
    keys: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for _, _, weight in weights:
        counts[weight] = counts.get(weight, 0) + 1
    for path, layer, weight in weights:
        # Layers shared between models are written twice; some versions write `kernel` only.
        keys[path] = weight if counts[weight] == 1 else path.removesuffix(":0")
        others[path] = [name for name in (weight, _from_layer(layer, weight)) if name != keys[path]]
    return keys, others


def _keras2_weights(tree: Tree) -> Iterator[tuple[str, str, str]]:
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


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """What `config.json` says of a layer."""

    name: str
    of_keras: bool  # not a class of the user's that happens to have the same name
    options: Mapping[str, Any]


def keras3_names(tree: Tree, configs: Mapping[str, LayerConfig]) -> dict[str, list[str]]:
    """Names by the path of a dataset, of a file with `vars` folders."""
    variables: dict[str, list[Dataset]] = {}
    for dataset in tree.datasets:
        folder, _, number = dataset.path.rpartition("/")
        if number.isdecimal() and folder.rpartition("/")[2] == _VARS:
            variables.setdefault(folder.rpartition("/")[0], []).append(dataset)
    names: dict[str, list[str]] = {}
    for folder, found in variables.items():
        layer = _find_layer(tree, configs, folder)
        if layer is None:
            continue
        ordered = sorted(found, key=lambda dataset: int(dataset.path.rpartition("/")[2]))
        config = configs.get(folder)
        leaves = _leaf_names(layer.leaves, ordered, config.options if config else None)
        for dataset, leaf in zip(ordered, leaves, strict=True):
            if leaf is not None:
                names[dataset.path] = [f"{p}/{leaf}" for p in _layer_names(tree, configs, folder)]
    return names


def _leaf_names(
    leaves: Sequence[_Leaf], found: Sequence[Dataset], options: Mapping[str, Any] | None
) -> list[str | None]:
    """Which variable each dataset is; None where more than one answer fits."""
    nothing: list[str | None] = [None] * len(found)
    if not all(dataset.torch_dtype and dataset.torch_dtype.is_floating_point for dataset in found):
        return nothing  # a quantised layer has scales between its variables
    fitting = [
        chosen for chosen in _choices(leaves, options) if _fits(chosen, found) and len(chosen)
    ]
    if not fitting:
        return nothing
    positions = zip(*([leaf.name for leaf in chosen] for chosen in fitting), strict=True)
    return [names[0] if len(set(names)) == 1 else None for names in positions]


def _choices(
    leaves: Sequence[_Leaf], options: Mapping[str, Any] | None
) -> Iterator[tuple[_Leaf, ...]]:
    """The variables a layer may have; one answer if its options are known."""
    optional = sorted({leaf.option for leaf in leaves if leaf.option})
    for present in itertools.product((True, False), repeat=len(optional)):
        chosen = dict(zip(optional, present, strict=True))
        if options is not None and any(
            bool(options.get(option, True)) != there for option, there in chosen.items()
        ):
            continue
        yield tuple(leaf for leaf in leaves if leaf.option is None or chosen[leaf.option])


def _fits(chosen: Sequence[_Leaf], found: Sequence[Dataset]) -> bool:
    return len(chosen) == len(found) and all(
        leaf.rank in (None, len(dataset.shape)) for leaf, dataset in zip(chosen, found, strict=True)
    )


def _find_layer(tree: Tree, configs: Mapping[str, LayerConfig], folder: str) -> _Layer | None:
    """The class of the layer in a folder, if it can be known."""
    config = configs.get(folder)
    if config is not None and not config.of_keras:
        return None
    parent, _, name = folder.rpartition("/")
    if not parent:
        return None
    if not _is_layer(tree, parent):  # a list of layers: folders are called by their classes
        return _LAYERS.get(_class_of(name))
    outer = _find_layer(tree, configs, parent)
    inner = outer.inner.get(name) if outer else None
    return _LAYERS[inner[0]] if inner else None


def _is_layer(tree: Tree, folder: str) -> bool:
    return f"{folder}/{_VARS}" in tree.texts


def _class_of(folder_name: str) -> str:
    return re.sub(r"_\d+$", "", folder_name)


def _layer_names(tree: Tree, configs: Mapping[str, LayerConfig], folder: str) -> tuple[str, ...]:
    """The layer's name behind those of the layers it is in; and the path of its folder."""
    parts: list[str] = []
    at = folder
    while at:
        if _is_layer(tree, at):
            own = _own_name(tree, configs, at)
            if own is None:
                return (folder,)
            parts.insert(0, own)
        at = at.rpartition("/")[0]
    return tuple(dict.fromkeys(("/".join(parts), folder)))


def _own_name(tree: Tree, configs: Mapping[str, LayerConfig], folder: str) -> str | None:
    written = tree.texts[f"{folder}/{_VARS}"].get("name")
    if written:
        return written[0]
    if folder in configs:
        return configs[folder].name
    parent, _, attribute = folder.rpartition("/")
    outer = _find_layer(tree, configs, parent) if parent and _is_layer(tree, parent) else None
    inner = outer.inner.get(attribute) if outer else None
    return inner[1] if inner else None


def read_configs(config: Any, tree: Tree) -> dict[str, LayerConfig]:
    """What a model's `config.json` says of each layer, by the layer's folder."""
    configs: dict[str, LayerConfig] = {}
    for listed in _LISTS:
        if listed in tree.texts:
            _add_configs(configs, config, listed, listed, 0)
    return configs


def _add_configs(
    configs: dict[str, LayerConfig], model: Any, folder: str, listed: str, depth: int
) -> None:
    used: dict[str, int] = {}
    for layer in _layers_of(model):
        class_name, options = layer.get("class_name"), layer.get("config")
        if not isinstance(class_name, str) or not isinstance(options, dict):
            continue
        unnumbered = _snake_case(class_name)
        number = used.get(unnumbered, 0)
        used[unnumbered] = number + 1
        path = f"{folder}/{unnumbered}" + (f"_{number}" if number else "")
        if isinstance(options.get("name"), str):
            configs[path] = LayerConfig(options["name"], _of_keras(layer), options)
        if class_name in _MODELS and depth < _MAX_DEPTH:
            _add_configs(configs, layer, f"{path}/{listed}", listed, depth + 1)


def _layers_of(model: Any) -> Iterator[Mapping[str, Any]]:
    """The layers of a model; operations between them have no folders."""
    options = model.get("config") if isinstance(model, dict) else None
    layers = options.get("layers") if isinstance(options, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and ".ops." not in str(layer.get("module")):
            yield layer


def _of_keras(layer: Mapping[str, Any]) -> bool:
    module = layer.get("module")
    return isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras")


def _snake_case(class_name: str) -> str:
    """As Keras's `to_snake_case`."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
