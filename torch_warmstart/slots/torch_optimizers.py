"""What torch's optimizers keep for a parameter, and which can go on from which.

A saved state names no class, so its kind is told by all of its slots together, and where several
kinds keep the same, by the options of its param groups. A kind is a rule of updating: slots of one
name mean other things in another (the `momentum_buffer` of RMSprop has divided gradients in it).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping

import torch

from torch_warmstart.model.sharding import FIRST_STATE
from torch_warmstart.values import frozen


@frozen
class _Kind:
    """What a rule keeps: for every parameter, with an option, or by a parameter's shape."""

    always: frozenset[str]
    with_option: frozenset[str] = frozenset()
    by_shape: frozenset[str] = frozenset()

    def may_keep(self, slots: Collection[str]) -> bool:
        """Whether these are all the slots that an optimizer of this kind kept."""
        return self.always <= set(slots) <= self.always | self.with_option | self.by_shape


def _kind(always: str, with_option: str = "", by_shape: str = "") -> _Kind:
    return _Kind(*(frozenset(names.split()) for names in (always, with_option, by_shape)))


STEP, PRODUCT = "step", "mu_product"
_AVERAGES_ALONE = "exp_avg exp_avg_sq"
_AVERAGES = f"{STEP} {_AVERAGES_ALONE}"
_AVERAGES_OF_KERNELS = f"{FIRST_STATE} exp_avg_sq"
# torch/optim/*.py, `_init_group`.
_KINDS: Mapping[str, _Kind] = {
    "Adam": _kind(_AVERAGES, "max_exp_avg_sq"),
    "RAdam": _kind(_AVERAGES),
    "NAdam": _kind(f"{_AVERAGES} {PRODUCT}"),
    "Adamax": _kind(f"{STEP} exp_avg exp_inf"),
    "SGD": _kind("momentum_buffer"),
    "Muon": _kind("momentum_buffer"),
    "RMSprop": _kind("step square_avg", "grad_avg momentum_buffer"),
    "Adadelta": _kind("step square_avg acc_delta"),
    "Adagrad": _kind("step sum"),
    "Adafactor": _kind("step", by_shape="row_var col_var variance"),
    "Rprop": _kind("step prev step_size"),
    "ASGD": _kind("step eta mu ax"),
    # Of FBGEMM's kernels.
    "FBGEMM's Adagrad": _kind(FIRST_STATE),
    "FBGEMM's Adam": _kind(_AVERAGES_OF_KERNELS),
}
# Of slots that are kept with an option.
_OPTIONS = {"max_exp_avg_sq": "amsgrad", "grad_avg": "centered", "momentum_buffer": "momentum"}
# Classes that keep what another keeps and mean the same by it.
_SAME = {"AdamW": "Adam", "SparseAdam": "Adam"}

# Options that only one kind's param groups have. The first that is there tells: NAdam and Adam have
# `decoupled_weight_decay` too, and since torch 2.7 AdamW.
_TELLING_OPTIONS = (
    ("momentum_decay", "NAdam"),
    ("amsgrad", "Adam"),
    ("decoupled_weight_decay", "RAdam"),
    ("ns_steps", "Muon"),
    ("dampening", "SGD"),
    ("centered", "RMSprop"),
    ("rho", "Adadelta"),
    ("lr_decay", "Adagrad"),
    ("beta2_decay", "Adafactor"),
    ("etas", "Rprop"),
    ("lambd", "ASGD"),
)

# Kinds that can go on with another's averages, by a rule of their own. By both.
_OWN_RULE = "The checkpoint's averages are {saved}'s, which {target} goes on with by its own rule."
_RELATIVES = {
    (saved, target): _OWN_RULE.format(saved=saved, target=target)
    for saved, target in (
        ("Adam", "RAdam"),
        ("NAdam", "RAdam"),
        ("RAdam", "Adam"),
        ("NAdam", "Adam"),
        ("Adam", "NAdam"),
        ("RAdam", "NAdam"),
    )
}


def is_torchs_own(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer is of a class of torch.optim, and of none made from it."""
    return _is_of_torch(type(optimizer))


def _is_of_torch(cls: type) -> bool:
    return cls.__module__.startswith("torch.optim") and cls is not torch.optim.Optimizer


def torch_name(optimizer: torch.optim.Optimizer) -> str | None:
    """The class of torch.optim that an optimizer is, or inherits from."""
    for cls in type(optimizer).__mro__:
        if _is_of_torch(cls):
            return cls.__name__
    return None


def torch_kind(optimizer: torch.optim.Optimizer) -> str | None:
    """The kind of an optimizer of torch's: its class, or the one that keeps the same."""
    name = torch_name(optimizer)
    return None if name is None else _SAME.get(name, name)


def has_averages(slots: Collection[str]) -> bool:
    """Whether what keeps these corrects averages by a count of steps, as Adam does."""
    return set(slots) >= set(_AVERAGES_ALONE.split())


def has_averages_of_kernels(slots: Collection[str]) -> bool:
    """Whether kernels that keep these correct averages by a count of steps, as Adam's do."""
    return set(slots) >= set(_AVERAGES_OF_KERNELS.split())


def kinds_of(slots: Collection[str], options: Collection[str]) -> frozenset[str]:
    """The kinds that an optimizer may be of; none if it is not torch's.

    Args:
        slots: All that it keeps, for whichever parameter.
        options: The names of its param groups' options; empty where they are not known.
    """
    return _kinds_of(frozenset(slots), frozenset(options))


@functools.lru_cache(maxsize=64)  # asked for each slot of each parameter
def _kinds_of(slots: frozenset[str], options: frozenset[str]) -> frozenset[str]:
    fitting = frozenset(name for name, kind in _KINDS.items() if slots and kind.may_keep(slots))
    told = next((kind for option, kind in _TELLING_OPTIONS if option in options), None)
    return frozenset((told,)) if told in fitting else fitting


def kinds_of_optimizer(optimizer: torch.optim.Optimizer, slots: Collection[str]) -> frozenset[str]:
    """The kinds that an optimizer, with these slots, may be of: by its class if that is torch's."""
    kind = torch_kind(optimizer)
    if kind is None:
        options = {option for group in optimizer.param_groups for option in group}
        return kinds_of(slots, options)
    return frozenset((kind,)) if kind in _KINDS else frozenset()


def can_go_on(saved: frozenset[str], target: frozenset[str]) -> bool:
    """Whether an optimizer can take another's slots; what is not known is left to their names."""
    if are_left_to_names(saved, target) or saved & target:
        return True
    return any((one, other) in _RELATIVES for one in saved for other in target)


def are_left_to_names(saved: Collection[str], target: Collection[str]) -> bool:
    """Whether only the names of slots tell if one goes on from the other: a kind is not known."""
    return not saved or not target


def remark(saved: frozenset[str], target: frozenset[str]) -> tuple[str, ...]:
    """How an optimizer goes on differently than the one it takes its slots from."""
    if saved & target:
        return ()
    return tuple(
        text for (one, other), text in _RELATIVES.items() if one in saved and other in target
    )


def needs(optimizer: torch.optim.Optimizer, slot: str) -> bool:
    """Whether the other slots of a parameter mean nothing without this one."""
    kind = _KINDS.get(torch_kind(optimizer) or "")
    return kind is None or slot not in kind.with_option


def option_of(optimizer: torch.optim.Optimizer, slot: str) -> str | None:
    """The option with which an optimizer keeps a slot that the others do without."""
    return None if needs(optimizer, slot) else _OPTIONS.get(slot, slot)


def ran_without(option: str, kind: str = "optimizer") -> str:
    """Why such a slot begins anew, whoever wrote the checkpoint."""
    return f"the checkpoint's {kind} ran without {option}"
