"""What TensorFlow's optimizers keep for a variable, what torch's keep, and which is which.

A quantity is one of the things an optimizer keeps, whoever names it: "m" and "v" are Adam's
averages. A kind is a rule of updating, as far as its quantities go: AdamW keeps what Adam keeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from torch_warmstart.slots.torch_optimizers import torch_name

TF1, KERAS, BERT = "TensorFlow 1", "Keras", "BERT"  # who wrote slots

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
}

# github.com/google-research/bert/optimization.py: `<variable>/adam_m`, `<variable>/adam_v`.
BERT_WORDS = {"adam_m": "m", "adam_v": "v"}

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

# Names of optimizers without case, underscores and the number that makes them unique.
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
_NUMBER = re.compile(r"_\d+$")


def kind_of_name(name: str) -> str | None:
    """The kind of an optimizer called `Adam`, `Adam_1`, `rm_sprop`; None for an unknown name."""
    return _KINDS.get(_NUMBER.sub("", name).replace("_", "").lower())


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


# -- torch's side ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A class of torch.optim: the kinds its slots can come from, and their quantities."""

    kinds: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]]


_EXP_AVG = {"exp_avg": ("m",), "exp_avg_sq": ("v",), "max_exp_avg_sq": ("vhat",)}
_LIKE_ADAM = Target(("Adam", "Nadam"), _EXP_AVG)
_TARGETS: Mapping[str, Target] = {
    "Adam": _LIKE_ADAM,
    "AdamW": _LIKE_ADAM,
    "RAdam": _LIKE_ADAM,
    "SparseAdam": _LIKE_ADAM,
    "NAdam": Target(("Adam", "Nadam"), {**_EXP_AVG, "mu_product": ()}),
    "Adamax": Target(("Adamax",), {"exp_avg": ("m",), "exp_inf": ("u",)}),
    "SGD": Target(("Momentum", "SGD"), {"momentum_buffer": ("accum", "velocity")}),
    "RMSprop": Target(
        ("RMSProp",), {"square_avg": ("ms",), "grad_avg": ("mg",), "momentum_buffer": ("mom",)}
    ),
    "Adagrad": Target(("Adagrad",), {"sum": ("accum",)}),
    "Adadelta": Target(("Adadelta",), {"square_avg": ("accum",), "acc_delta": ("update",)}),
    # Of a matrix that is transposed, `row_var` is c and `col_var` is r.
    "Adafactor": Target(
        ("Adafactor",), {"row_var": ("r", "c"), "col_var": ("c", "r"), "variance": ("v",)}
    ),
}

# Quantities that an optimizer keeps only with an option; without it, torch's slot has its start.
OPTIONS = {"vhat": "amsgrad", "mg": "centered", "mom": "momentum"}

# TensorFlow multiplies by the learning rate before it averages, torch after. torch's value by
# TensorFlow's, times a power of lr: keras/src/optimizers/{sgd,rmsprop}.py, and
# tensorflow/core/kernels/training_ops.cc for RMSProp.
SIGN_BY_LR = {"velocity": -1.0, "mom": 1.0}


def target_of(optimizer: torch.optim.Optimizer) -> Target | None:
    """What is known of an optimizer; None: it is no torch.optim class with TensorFlow's like."""
    name = torch_name(optimizer)
    return _TARGETS.get(name) if name else None


# -- how torch goes on differently -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Remark:
    """What to tell about going from an optimizer of TensorFlow to one of torch."""

    kinds: tuple[str, ...]
    targets: tuple[str, ...]
    text: str
    writers: tuple[str, ...] = (TF1, KERAS)


_REMARKS = (
    _Remark(
        ("Adam",),
        ("Adam", "AdamW"),
        "TensorFlow's Adam adds epsilon to sqrt(v), torch's to sqrt(v / (1 - beta2**step)): with "
        "the same eps torch's early steps are a little longer, later ones the same.",
    ),
    _Remark(
        ("Adam",),
        ("Adam", "AdamW", "RAdam", "NAdam", "SparseAdam"),
        "BERT's Adam does not correct the bias of its averages, torch's does: they differ in the "
        "first thousands of steps only.",
        (BERT,),
    ),
    _Remark(("Adam",), ("RAdam",), "RAdam goes on with Adam's averages by its own rule."),
    _Remark(("Adam",), ("NAdam",), "NAdam goes on with Adam's averages by its own rule."),
    _Remark(
        ("Nadam",),
        ("Adam", "AdamW", "RAdam", "SparseAdam"),
        "The checkpoint's averages are Nadam's, which this optimizer goes on with by its own rule.",
    ),
    _Remark(
        ("Nadam",),
        ("NAdam",),
        "Keras' Nadam (2.11 and later) is torch's with momentum_decay=1; before, with 0.004.",
    ),
    _Remark(
        ("Adamax",),
        ("Adamax",),
        "TensorFlow's Adamax adds epsilon to the norm where it divides, torch's to each gradient.",
    ),
    _Remark(
        ("RMSProp",),
        ("RMSprop",),
        "TensorFlow's RMSProp adds epsilon under the root, torch's to the root: eps=sqrt(epsilon) "
        "is closest where square_avg is small.",
    ),
    _Remark(
        ("Adagrad",),
        ("Adagrad",),
        "TensorFlow 1's Adagrad has no epsilon: torch's eps should be small.",
        (TF1,),
    ),
    _Remark(
        ("Adagrad",),
        ("Adagrad",),
        "Keras' Adagrad (2.11 and later) adds epsilon under the root, torch's to the root.",
        (KERAS,),
    ),
    _Remark(
        ("Adafactor",),
        ("Adafactor",),
        "Keras' Adafactor adds epsilon_1 to each squared gradient, torch's bounds the estimate.",
    ),
)
SCALED = (
    "Keras and TensorFlow keep {quantity} with the learning rate in it; it is divided by torch's "
    "lr as it is now ({lr:g}), so set lr to the one to go on with before the warm start."
)
UNKNOWN_SCALE = (
    "What var_name_to_prev_var_name names for {slot} is taken as it is. Keras and TensorFlow's "
    "RMSProp keep momentum with the learning rate in it, Keras' SGD with the other sign too."
)
TWO_BIASES = (
    "torch's recurrent layers add two biases where TensorFlow has one. Both take its slots and get "
    "its gradient, so that together they move twice as far."
)


def remarks(kind: str, writer: str, optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """How an optimizer of torch goes on differently than the one it takes its slots from."""
    target = torch_name(optimizer)
    return tuple(
        remark.text
        for remark in _REMARKS
        if kind in remark.kinds and target in remark.targets and writer in remark.writers
    )
