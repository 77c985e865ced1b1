"""What TensorFlow's optimizers call what they keep for a variable, and what else they save.

The one list of such names: who looks for an optimizer's slots, and who leaves them out, asks here.

A quantity is one of the things an optimizer keeps, whoever names it: "m" and "v" are Adam's
averages. A kind is a rule of updating, as far as its quantities go: AdamW keeps what Adam keeps.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

# tensorflow/python/training/{adam,momentum,adagrad,proximal_adagrad,adadelta,rmsprop,ftrl,
# adagrad_da}.py and tensorflow/contrib/opt: `<variable>/<name>`, then `<name>_1` and so on, in the
# order of `_create_slots`. By name: the kind, and the quantities by how many there are.
_ADAM, _ACCUMULATOR = {2: ("m", "v")}, {1: ("accum",)}
TF1_OPTIMIZERS: Mapping[str, tuple[str, Mapping[int, tuple[str, ...]]]] = {
    "Adam": ("Adam", _ADAM),
    "AdamW": ("Adam", _ADAM),
    "AdaMax": ("Adamax", {2: ("m", "u")}),
    "Momentum": ("Momentum", _ACCUMULATOR),
    "MomentumW": ("Momentum", _ACCUMULATOR),
    "Adagrad": ("Adagrad", _ACCUMULATOR),
    "ProximalAdagrad": ("Adagrad", _ACCUMULATOR),
    "Adadelta": ("Adadelta", {2: ("accum", "update")}),
    "RMSProp": ("RMSProp", {2: ("ms", "mom"), 3: ("ms", "mg", "mom")}),
    "Ftrl": ("Ftrl", {2: ("accum", "linear")}),
    "AdagradDA": ("AdagradDA", {2: ("grad", "grad_squared")}),
    # tensor2tensor/utils/adafactor.py, as Pegasus has it.
    "Adafactor": ("Adafactor", {1: ("v",), 2: ("r", "c")}),
}

# github.com/google-research/bert/optimization.py: `<variable>/adam_m`, `<variable>/adam_v`.
BERT_WORDS = {"adam_m": "m", "adam_v": "v"}

# github.com/tensorflow/mesh, mesh_tensorflow/optimize.py: `<variable>_slot_vr`, as T5 has them.
MESH_SLOT = re.compile(r"(.+)_slot_(m|v|vr|vc)")

# By kind and quantity, what Keras (and tf.compat.v1.train in an object graph) calls it: the slot of
# tf_keras/src/optimizers/legacy, the name in tf_keras/src/optimizers, the list in either and in
# keras/src/optimizers.
_WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Adam": {
        "m": ("m", "_momentums"),
        "v": ("v", "_velocities"),
        "vhat": ("vhat", "_velocity_hats"),
    },
    "Nadam": {"m": ("m", "_momentums"), "v": ("v", "_velocities")},
    "Adamax": {"m": ("m", "_m"), "u": ("v", "u", "_u")},
    "Momentum": {"accum": ("momentum",)},
    "SGD": {"velocity": ("momentum", "m", "momentums")},
    "RMSProp": {
        "ms": ("rms", "velocity", "_velocities"),
        "mg": ("mg", "average_gradient", "_average_gradients"),
        "mom": ("momentum", "_momentums"),
    },
    "Adagrad": {"accum": ("accumulator", "_accumulators")},
    "Adadelta": {
        "accum": ("accum", "accum_grad", "accumulated_grad", "_accumulated_grads"),
        "update": ("accum_update", "accum_var", "accumulated_delta_var", "_accumulated_delta_vars"),
    },
    "Adafactor": {"r": ("r", "_r"), "c": ("c", "_c"), "v": ("v", "_v")},
    "Ftrl": {
        "accum": ("accum", "accumulator", "_accumulators"),
        "linear": ("linear", "_linears"),
    },
    "Lion": {"m": ("m", "_momentums")},
}
# keras/src/optimizers, `add_variable_from_reference`: what follows a variable's path in the name of
# its slot, `sequential_den_kernel_momentum`. By kind: the quantity. Longer words first.
_ENDINGS: Mapping[str, Mapping[str, str]] = {
    "Adam": {"velocity_hat": "vhat", "momentum": "m", "velocity": "v"},
    "Nadam": {"momentum": "m", "velocity": "v"},
    "Adamax": {"momentum": "m", "norm": "u"},
    "SGD": {"momentum": "velocity"},
    "RMSProp": {"average_gradient": "mg", "velocity": "ms", "momentum": "mom"},
    "Adagrad": {"accumulator": "accum"},
    "Adadelta": {"accumulated_delta_var": "update", "accumulated_grad": "accum"},
    "Ftrl": {"accumulator": "accum", "linear": "linear"},
    "Lion": {"momentum": "m"},
}
KERAS_WORDS = frozenset(
    word for words in _WORDS.values() for listed in words.values() for word in listed
)

# By an optimizer's plain name.
_KINDS = {
    **{kind.lower(): kind for kind in _WORDS},
    **{name.lower(): kind for name, (kind, _) in TF1_OPTIMIZERS.items()},
    "adamweightdecay": "Adam",
    "lazyadam": "Adam",
}
# What an optimizer with a name of its own may be, if it keeps just this.
_SIGNATURES = {
    frozenset(("m", "v")): "Adam",
    frozenset(("m", "v", "vhat")): "Adam",
    frozenset(("momentum",)): "SGD",
    frozenset(("rms",)): "RMSProp",
    frozenset(("rms", "momentum")): "RMSProp",
    frozenset(("rms", "mg")): "RMSProp",
    frozenset(("rms", "mg", "momentum")): "RMSProp",
    frozenset(("accumulator",)): "Adagrad",
    frozenset(("accum_grad", "accum_var")): "Adadelta",
    frozenset(("accum", "accum_update")): "Adadelta",
    frozenset(("_momentums", "_velocities", "_velocity_hats")): "Adam",
    frozenset(("_momentums", "_velocities")): "Adam",
    frozenset(("momentums",)): "SGD",
    frozenset(("_velocities", "_momentums", "_average_gradients")): "RMSProp",
    frozenset(("_accumulated_grads", "_accumulated_delta_vars")): "Adadelta",
    frozenset(("_accumulators",)): "Adagrad",
}

# -- which names are an optimizer's ----------------------------------------------------------------

# What follows a variable's key.
TF1_SLOT = re.compile(rf"({'|'.join(TF1_OPTIMIZERS)})(?:_(\d{{1,18}}))?")
# Counts of steps, beside an optimizer's slots.
COUNTS = ("iter", "_iterations", "iterations", "iteration")
GLOBAL_STEP = "global_step"
POWER = re.compile(r"(?:(.*)/)?beta([12])_power(?:_\d+)?")
# Sums of gradients, which Keras 3 applies every few batches: in an object graph, and at the end of
# a name in an .h5.
GRADIENT_SUMS, GRADIENT_SUM = "_accumulated_gradients", "_gradient_accumulator"
# All variables of an optimizer in one list: of an object graph, of a file of Keras 3.
ALL_VARIABLES = "_variables"
_NUMBERED = re.compile(r"vars/(?!0$|1$)\d+")  # the first two count, and have the learning rate
# Of Keras, for what an optimizer keeps, whatever it is called.
KERAS_FOLDERS = ("optimizer", "optimizer_weights", "_optimizer")

_IN_GRAPH = "/.OPTIMIZER_SLOT/"  # in the keys of object-based checkpoints
_ATTRIBUTES = "/.ATTRIBUTES/"  # the end of such a key
_CHECKPOINT_COUNTS = (GLOBAL_STEP, "save_counter")
# Optimizers that torch has no like of, or not with the same slots.
_OTHER_KINDS = ("lamb", "muon", "schedulefreeadamw")
_FIRST = KERAS_WORDS | {ALL_VARIABLES}
_KERAS_NAMES = {*_KINDS, *_OTHER_KINDS} - {"momentum", "momentumw"}
_KERAS_ENDINGS = tuple({f"_{ending}" for endings in _ENDINGS.values() for ending in endings})
_SCOPE = re.compile(
    rf"optimizers?|_optimizer|optimizer_weights|training|"
    rf"\w*({'|'.join((*_KINDS, *_OTHER_KINDS))})(_\d+)?",
    re.IGNORECASE,
)


def is_slot(name: str) -> bool:
    """Whether a key, or a name in an object graph, is that of a variable's state in an optimizer.

    By the name alone. Slots of an optimizer with a name of its own are not told by it.
    """
    if _IN_GRAPH in name:
        return True
    path, _, last = name.partition(_ATTRIBUTES)[0].removesuffix(":0").rpartition("/")
    if not path:
        return False
    named = TF1_SLOT.fullmatch(last) or MESH_SLOT.fullmatch(last)
    return bool(named) or last in BERT_WORDS or _is_keras_slot(path, last)


def is_optimizer_state(name: str) -> bool:
    """Whether a name is that of a slot, of a count of steps, or of anything in an optimizer."""
    path, _, last = name.rpartition("/")
    if is_slot(name) or last in _CHECKPOINT_COUNTS or POWER.fullmatch(last):
        return True
    return any(map(_is_scope, path.split("/")))


def _is_keras_slot(path: str, last: str) -> bool:
    parts = path.split("/")
    return any(
        _is_in_optimizer(part, [*parts[at + 1 :], last])
        for at, part in enumerate(parts)
        if _is_keras_optimizer(part)
    )


@functools.lru_cache(maxsize=65536)  # a checkpoint's names share most of their parts
def _is_keras_optimizer(part: str) -> bool:
    return part in KERAS_FOLDERS or _plain(part) in _KERAS_NAMES


@functools.lru_cache(maxsize=65536)
def _is_scope(part: str) -> bool:
    """Whether a part of a path is an optimizer's, or what programs call the scope around one."""
    return _SCOPE.fullmatch(part) is not None


def _is_in_optimizer(optimizer: str, inside: Sequence[str]) -> bool:
    """Whether a path inside a Keras optimizer is a slot's: `m/V` or `V/m`, `V_momentum`, a list."""
    if len(inside) > 1 and inside[0] in _FIRST:
        return True
    if _NUMBERED.fullmatch("/".join(inside)):
        return True
    if optimizer in KERAS_FOLDERS:
        return False
    return inside[-1].endswith(_KERAS_ENDINGS) if len(inside) == 1 else inside[-1] in KERAS_WORDS


# -- whose they are --------------------------------------------------------------------------------


def kind_of_name(name: str) -> str | None:
    """The kind of an optimizer called `Adam`, `Adam_1`, `rm_sprop`; None for an unknown name."""
    return _KINDS.get(_plain(name))


def kind_of_words(words: Sequence[str]) -> str | None:
    """The kind of an optimizer whose slots or lists are called like this, if they tell."""
    return _SIGNATURES.get(frozenset(words))


def quantity(kind: str, word: str) -> str | None:
    """The quantity that a Keras optimizer of a kind calls like this."""
    for name, words in _WORDS.get(kind, {}).items():
        if word in words:
            return name
    return None


def split_ending(kind: str, name: str) -> tuple[str, str] | None:
    """The variable and the quantity of a slot whose name ends with what it is, in Keras 3."""
    for ending, found in _ENDINGS.get(kind, {}).items():
        if name.endswith(f"_{ending}"):
            return name.removesuffix(f"_{ending}"), found
    return None


def _plain(name: str) -> str:
    """An optimizer's name without case, underscores and the number that makes it unique."""
    return re.sub(r"_\d+$", "", name).replace("_", "").lower()
