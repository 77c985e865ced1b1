"""Whose an optimizer's variables are in a `.keras` file of Keras 3, which numbers them all.

`optimizer/vars/N` has no names. But Keras reads them by their numbers alone, into the variables of
an optimizer that is built for `model.trainable_variables` (`BaseOptimizer.load_own_variables`), so
their order is a part of the format: the count of steps, the learning rate unless it is a schedule,
and then slots, in the order of the model's trainable variables. Where the loss is scaled
(`mixed_float16`), that is so of the optimizer within the scaling one, in a folder of its own. That
order is the layers', of which
`config.json` has the list, and within Keras's own layers the one they make their variables in.

This is said only where all of it is known: the model is a Functional or a Sequential of Keras's own
layers, the optimizer is one of the table, and there are as many slots as there must be, each with
its variable's shape. `.weights.h5` has no list of layers, and of tf_keras's optimizers only a name.

Source: keras `optimizers/*.py` (`build`), `layers/layer.py` (`variables`, `trainable`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch_warmstart.formats.base import GraphOptimizer
from torch_warmstart.formats.keras.folders import LayerFolder, number_of
from torch_warmstart.formats.keras.hdf5 import Dataset
from torch_warmstart.formats.keras.layers import LAYERS
from torch_warmstart.values import frozen

_FOLDER = "optimizer"
_INNER = "inner_optimizer"  # of one that scales the loss, which lists its variables as its own, too
_FOLDER_WITHIN = f"{_FOLDER}/{_INNER}"
_SCALES_THE_LOSS = "LossScaleOptimizer"
_MODELS = ("Functional", "Sequential")
# `trainable=False` in the constructor freezes the layer within these, and in no others; set later,
# it freezes what is within any layer, and the configuration does not tell which it was.
_FREEZE_THEIR_CELL = ("lstm", "gru", "simple_rnn")
_SEED = "seed_generator"
_COUNT = "_iterations"


@frozen
class _Slots:
    """Lists of slots that are written variable by variable; `option` says whether there are any."""

    lists: tuple[str, ...]
    option: str = ""


_ADAM = (_Slots(("_momentums", "_velocities")), _Slots(("_velocity_hats",), "amsgrad"))

# By class; Adafactor and Muon keep other things for some variables than for others.
_OPTIMIZERS: Mapping[str, tuple[_Slots, ...]] = {
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "Nadam": (_Slots(("_momentums", "_velocities")),),
    "Adamax": (_Slots(("_m", "_u")),),
    "SGD": (_Slots(("momentums",), "momentum"),),
    "RMSprop": (
        _Slots(("_velocities",)),
        _Slots(("_momentums",), "momentum"),
        _Slots(("_average_gradients",), "centered"),
    ),
    "Adagrad": (_Slots(("_accumulators",)),),
    "Adadelta": (_Slots(("_accumulated_grads", "_accumulated_delta_vars")),),
    "Ftrl": (_Slots(("_accumulators", "_linears")),),
    "Lion": (_Slots(("_momentums",)),),
}
_BEHIND = {"Nadam": ("_u_product",)}  # for all variables together
# With these there are more variables, before the slots and among them.
_NOT_WITH = ("use_ema", "gradient_accumulation_steps")


def find_optimizer(folders: Sequence[LayerFolder], config: Any) -> GraphOptimizer | None:
    """The optimizer, its keys being the paths of datasets; None if its order is not known.

    Args:
        folders: The layers of the file, the model first.
        config: The file's `config.json`.
    """
    kind, options = _optimizer_of(config)
    written = {each.folder: each.variables for each in folders}
    found = written.get(_FOLDER_WITHIN) or written.get(_FOLDER)
    trained = _trained_variables(folders) if _class_of(config) in _MODELS else None
    if not found or trained is None or not _is_known(kind, options):
        return None
    if [number_of(dataset) for dataset in found] != list(range(len(found))):
        return None
    return _take_apart(kind, options, found, trained)


def _optimizer_of(config: Any) -> tuple[str, Mapping[str, Any]]:
    for key in ("compile_config", "optimizer"):
        config = config.get(key) if isinstance(config, dict) else None
    if _class_of(config) == _SCALES_THE_LOSS and isinstance(config.get("config"), dict):
        config = config["config"].get(_INNER)
    options = config.get("config") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(options, dict):
        return "", {}
    return _class_of(config), options


def _class_of(config: Any) -> str:
    """Keras's own class that a configuration is of, or nothing."""
    if not isinstance(config, dict):
        return ""
    is_of_keras = str(config.get("module")).split(".")[0] == "keras"
    return str(config.get("class_name")) if is_of_keras else ""


def _is_known(kind: str, options: Mapping[str, Any]) -> bool:
    return kind in _OPTIMIZERS and not any(options.get(option) for option in _NOT_WITH)


def _take_apart(
    kind: str, options: Mapping[str, Any], found: Sequence[Dataset], trained: Sequence[Dataset]
) -> GraphOptimizer | None:
    attributes = [_COUNT]
    if isinstance(options.get("learning_rate"), int | float):
        attributes.append("_learning_rate")
    groups = [g for g in _OPTIMIZERS[kind] if not g.option or options.get(g.option)]
    behind = _BEHIND.get(kind, ())
    expected = [
        *((name, None) for name in attributes),
        *((name, of) for group in groups for of in trained for name in group.lists),
        *((name, None) for name in behind),
    ]
    if len(expected) != len(found) or not all(map(_is_like, expected, found)):
        return None
    slots: dict[str, dict[str, str]] = {}
    for (name, of), dataset in zip(expected, found, strict=True):
        if of is not None:
            slots.setdefault(of.path, {})[name] = dataset.path
    single = {
        name: dataset.path
        for (name, of), dataset in zip(expected, found, strict=True)
        if of is None
    }
    return GraphOptimizer(slots, single, {single[_COUNT]: f"{kind.lower()}/iteration"})


def _is_like(expected: tuple[str, Dataset | None], found: Dataset) -> bool:
    """Whether a dataset has the shape of what it must be; a number where it is no slot."""
    of = expected[1]
    return found.shape == (of.shape if of is not None else ())


# -- the order of a model's trainable variables --------------------------------------------------


def _trained_variables(folders: Sequence[LayerFolder]) -> list[Dataset] | None:
    """In the order of `model.trainable_variables`; None if it is not known."""
    inner: dict[str, list[LayerFolder]] = {}
    for layer in folders[1:]:
        assert layer.parent is not None
        inner.setdefault(layer.parent.folder, []).append(layer)
    todo: list[LayerFolder] = [folders[0]]
    trained: list[Dataset] = []
    reached = {_FOLDER, _FOLDER_WITHIN}
    while todo:
        layer = todo.pop()
        reached.add(layer.folder)
        within = _in_order(layer, inner.get(layer.folder, []))
        if within is None or not _has_known_variables(layer):
            return None
        if _is_frozen(layer) and layer.kind not in _FREEZE_THEIR_CELL and _has_attributes(within):
            return None
        trained += [] if _is_frozen(layer) else _trained(layer)
        todo += reversed(within)
    return trained if reached.issuperset(map(_folder_of_weights, folders)) else None


def _folder_of_weights(layer: LayerFolder) -> str:
    """The folder of a layer that has any, else the model's."""
    return layer.folder if layer.variables and layer.kind != _SEED else ""


def _in_order(layer: LayerFolder, within: Sequence[LayerFolder]) -> list[LayerFolder] | None:
    """The layers in another in the order of their variables; None if it is not known."""
    placed: list[tuple[tuple[int, int], LayerFolder]] = []
    known = LAYERS.get(layer.kind or "")
    attributes = list(known.inner) if known else []
    for each in within:
        if each.is_listed and each.config is not None and len(each.steps) == 2:
            placed.append(((len(attributes), each.config.position), each))
        elif not each.is_listed and each.steps[0] in attributes:
            placed.append(((attributes.index(each.steps[0]), 0), each))
    positions = [position for position, _ in placed]
    if len(set(positions)) < len(positions):
        return None
    return [each for _, each in sorted(placed, key=lambda pair: pair[0])]


def _has_known_variables(layer: LayerFolder) -> bool:
    return all(leaf is not None and leaf.names for leaf in layer.leaves)


def _has_attributes(within: Sequence[LayerFolder]) -> bool:
    return any(each.kind in LAYERS and not each.is_listed for each in within)


def _is_frozen(layer: LayerFolder) -> bool:
    if layer.config is not None:
        return layer.config.options.get("trainable") is False
    parent = layer.parent
    return parent is not None and parent.kind in _FREEZE_THEIR_CELL and _is_frozen(parent)


def _trained(layer: LayerFolder) -> Iterator[Dataset]:
    leaves = zip(layer.variables, layer.leaves, strict=True)
    return (dataset for dataset, leaf in leaves if leaf is not None and leaf.is_trained)
