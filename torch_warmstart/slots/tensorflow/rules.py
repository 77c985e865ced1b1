"""From which kinds of TensorFlow's optimizers torch's can go on, by which of their quantities.

Kinds and quantities are those of `layouts/tensorflow/optimizers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from torch_warmstart.slots.torch_optimizers import PRODUCT, torch_kind, torch_name
from torch_warmstart.values import frozen

TF1, KERAS, BERT = "TensorFlow 1", "Keras", "BERT"  # who wrote slots


@frozen
class Target:
    """A kind of torch's optimizers: TensorFlow's kinds its slots can come from, and quantities."""

    kinds: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]]


# Keras' Adafactor keeps means over the last axis (r) and over the one before (c), torch's those of
# rows and of columns (keras/src/optimizers/adafactor.py, torch/optim/_adafactor.py). Of a matrix
# that is transposed, the one mean is the other. By torch's slot and the parameter's layout.
FACTORS: Mapping[tuple[str, str], str] = {
    ("row_var", "identity"): "r",
    ("row_var", "transpose"): "c",
    ("col_var", "identity"): "c",
    ("col_var", "transpose"): "r",
}


def _factors(slot: str) -> tuple[str, ...]:
    """What one of torch's factors may come from."""
    return tuple(quantity for (of, _), quantity in FACTORS.items() if of == slot)


_EXP_AVG = {"exp_avg": ("m",), "exp_avg_sq": ("v",), "max_exp_avg_sq": ("vhat",)}
_LIKE_ADAM = Target(("Adam", "Nadam"), _EXP_AVG)
# By torch's kind, as `torch_optimizers` tells it.
_TARGETS: Mapping[str, Target] = {
    "Adam": _LIKE_ADAM,
    "RAdam": _LIKE_ADAM,
    "NAdam": Target(("Adam", "Nadam"), {**_EXP_AVG, PRODUCT: ()}),
    "Adamax": Target(("Adamax",), {"exp_avg": ("m",), "exp_inf": ("u",)}),
    "SGD": Target(("Momentum", "SGD"), {"momentum_buffer": ("accum", "velocity")}),
    "RMSprop": Target(
        ("RMSProp",), {"square_avg": ("ms",), "grad_avg": ("mg",), "momentum_buffer": ("mom",)}
    ),
    "Adagrad": Target(("Adagrad",), {"sum": ("accum",)}),
    "Adadelta": Target(("Adadelta",), {"square_avg": ("accum",), "acc_delta": ("update",)}),
    "Adafactor": Target(
        ("Adafactor",),
        {**{slot: _factors(slot) for slot in ("row_var", "col_var")}, "variance": ("v",)},
    ),
}

# TensorFlow multiplies by the learning rate before it averages, torch after. torch's value by
# TensorFlow's, times lr: keras/src/optimizers/{sgd,rmsprop}.py, and
# tensorflow/core/kernels/training_ops.cc for RMSProp.
_SIGN = {"velocity": -1.0, "mom": 1.0}


def has_lr_in_it(quantity: str) -> bool:
    """Whether TensorFlow has multiplied a quantity by the learning rate."""
    return quantity in _SIGN


def without_lr(quantity: str, lr: float) -> float:
    """What torch's value of such a quantity is by TensorFlow's; `lr` is not 0."""
    return _SIGN[quantity] / lr


def target_of(optimizer: torch.optim.Optimizer) -> Target | None:
    """What is known of an optimizer; None: it is no torch.optim class with TensorFlow's like."""
    return _TARGETS.get(torch_kind(optimizer) or "")


# -- how torch goes on differently -----------------------------------------------------------------


@frozen
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
        "TensorFlow's Adafactor adds epsilon_1 to each squared gradient, torch's bounds the "
        "estimate.",
    ),
)
# tf_keras/src/optimizers/legacy/rmsprop.py: with momentum it calls TensorFlow 1's kernel.
LEGACY_RMSPROP = (
    "Keras' RMSprop before 2.11 without momentum adds epsilon to the root, as torch's does: with "
    "eps=epsilon (1e-7 unless it was set) torch goes on in the same way."
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
    "its gradient, so that together they move twice as far. With bias_hh frozen "
    "(requires_grad=False) before the optimizer is made, it goes on exactly as TensorFlow does."
)


def remarks(kind: str, writer: str, optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """How an optimizer of torch goes on differently than the one it takes its slots from."""
    target = torch_name(optimizer)
    return tuple(
        remark.text
        for remark in _REMARKS
        if kind in remark.kinds and target in remark.targets and writer in remark.writers
    )
