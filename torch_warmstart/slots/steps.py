"""How many steps an optimizer of TensorFlow had taken: a count, or the powers of Adam's betas.

`beta1_power` begins as beta1 and is multiplied by beta1 after each step, so that after t steps it
is beta1 ** (t + 1), rounded t times (tensorflow/python/training/adam.py, `_finish`). In float32
beta1_power is 0 after about a thousand steps, beta2_power after a hundred thousand; then a global
step is the only count there is.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.layouts import Layout
from torch_warmstart.model import Slot
from torch_warmstart.values import frozen

_MAX_STEPS = 4_000_000  # whose powers are multiplied out
_ROUNDINGS = 16  # by which a stored power may differ from the one worked out here, in epsilons
_BETA = re.compile(r"beta[12](?=_power)")
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


@frozen
class Power:
    """A tensor that is a power of a beta."""

    key: str
    beta: float  # torch's

    @property
    def optimizer(self) -> str:
        """What the powers of one optimizer have in common: `beta1_power_1`, `beta2_power_1`."""
        return _BETA.sub("", self.key)


def steps_layout(name: str, powers: Sequence[Power], count: str | None) -> Layout:
    """The number of steps, from powers of betas and then, if it has a key, a count.

    Where several optimizers have powers, those count that are powers of torch's betas. They must
    agree if they have not become 0; the count is for when all have.

    Args:
        name: The slot's, for messages.
        powers: The first tensors.
        count: The key of one that follows; None: there is none.
    """

    def to_torch(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if tensors[0].device.type == "meta":
            return (torch.empty((), device="meta"),)
        steps = _agreed(_Asked(name, powers, count), tensors)
        return (torch.tensor(float(steps), dtype=torch.float64),)

    def to_tf(steps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        counted = [steps.to(torch.int64)] if count is not None else []
        betas = (torch.tensor(power.beta, dtype=torch.float32) for power in powers)
        return (*(beta ** (steps + 1) for beta in betas), *counted)

    return Layout("steps", to_torch, to_tf, num_tf=len(powers) + (count is not None))


def one_of_all(name: str, layouts: Sequence[Layout]) -> Layout:
    """The one number that each of several tensors has for itself, which must be the same.

    Args:
        name: The slot's, for messages.
        layouts: What makes each number.
    """

    def to_torch(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rest = iter(tensors)
        numbers = [each.to_torch(*itertools.islice(rest, each.num_tf))[0] for each in layouts]
        if not numbers[0].is_meta and len({float(number) for number in numbers}) > 1:
            found = ", ".join(f"{float(number):g}" for number in numbers)
            raise UnsupportedError(
                f"{name}: the tensors that its parameter is joined of have {found}, and it has one "
                "number for all: leave `optimizer` out, or select no slots of this parameter."
            )
        return (numbers[0],)

    def to_tf(number: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor for each in layouts for tensor in each.to_tf(number))

    return Layout("one of all", to_torch, to_tf, num_tf=sum(each.num_tf for each in layouts))


def apart(count: int) -> Layout:
    """Refuses slots that cannot be joined as their parameters are."""

    def refuse(*_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise UnsupportedError("how an optimizer's slots of such a kind are joined is not known")

    return Layout("no_slots", refuse, refuse, num_tf=count)


@frozen
class _Asked:
    """What steps are worked out from; the arguments of `steps_layout`."""

    name: str
    powers: Sequence[Power]
    count: str | None

    def refused(self, problem: str, but: str = "") -> UnsupportedError:
        """What is wrong, and what may be named instead: all but the key that is at fault."""
        counts = [self.count] if self.count is not None else [power.key for power in self.powers]
        keys = [key for key in counts if key != but]
        named = keys and (
            f", or name what counts its steps, as {' or '.join(map(repr, keys))} may: "
            f"var_name_to_prev_var_name={{{self.name!r}: {keys[0]!r}}}"
        )
        return UnsupportedError(
            f"{self.name}: {problem}. Give the optimizer the checkpoint's betas{named or ''}."
        )


def product_layout(slot: Slot, steps: Layout | None) -> Layout:
    """NAdam's product of momentums, from the count of its steps (torch/optim/nadam.py).

    Args:
        slot: The product, of which no tensor was saved.
        steps: What makes the count of steps; None: it is one.
    """
    beta, decay = float(slot.group["betas"][0]), float(slot.group["momentum_decay"])

    def to_torch(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if tensors[0].device.type == "meta":
            return (torch.empty((), device="meta"),)
        count = tensors[0] if steps is None else steps.to_torch(*tensors)[0]
        return (torch.tensor(_mu_product(int(count), beta, decay), dtype=torch.float64),)

    def to_tf(_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise UnsupportedError("a product of momentums is not turned back into a count of steps")

    return Layout("product of momentums", to_torch, to_tf, num_tf=steps.num_tf if steps else 1)


def _mu_product(steps: int, beta: float, decay: float) -> float:
    product = 1.0
    for step in range(1, steps + 1):
        product *= beta * (1.0 - 0.5 * 0.96 ** (step * decay))
        if product < np.finfo(np.float32).smallest_subnormal:
            return 0.0
    return product


def _agreed(asked: _Asked, tensors: Sequence[torch.Tensor]) -> int:
    found: dict[str, dict[str, int] | UnsupportedError] = {}  # by optimizer: steps by key
    for power, tensor in zip(asked.powers, tensors, strict=False):
        counts = found.setdefault(power.optimizer, {})
        if isinstance(counts, UnsupportedError):
            continue
        try:
            steps = _steps_of(asked, power, tensor)
        except UnsupportedError as error:
            found[power.optimizer] = error
        else:
            counts.update({} if steps is None else {power.key: steps})
    fitting = [counts for counts in found.values() if not isinstance(counts, UnsupportedError)]
    if not fitting:
        raise next(error for error in found.values() if isinstance(error, UnsupportedError))
    return _one_count(asked, {key: n for counts in fitting for key, n in counts.items()}, tensors)


def _one_count(asked: _Asked, counts: Mapping[str, int], tensors: Sequence[torch.Tensor]) -> int:
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{key!r} means {steps:,}" for key, steps in counts.items())
        raise asked.refused(f"the number of steps is unclear ({found})")
    if counts:
        return next(iter(counts.values()))
    if asked.count is not None:
        return int(tensors[-1])
    gone = " and ".join(repr(power.key) for power in asked.powers)
    raise UnsupportedError(
        f"{asked.name}: {gone} have become 0 after many steps, and the checkpoint has no global "
        f"step. Leave {asked.name!r} out of vars_to_warm_start, and set it yourself afterwards: "
        "with a large count the optimizer goes on as TensorFlow would, with 0 it begins with a "
        "wrong correction."
    )


def _steps_of(asked: _Asked, power: Power, tensor: torch.Tensor) -> int | None:
    """The steps that a power tells; None if it has become 0."""
    value = float(tensor)
    if not math.isfinite(value) or value < 0 or value > 1:
        raise asked.refused(f"{power.key!r} is {value:g}, which is no power of a beta", power.key)
    if value < torch.finfo(tensor.dtype).smallest_normal:
        return None  # or rounded to a few bits on the way there
    steps = _steps(value, power.beta, tensor.dtype)
    if steps is None:
        raise asked.refused(
            f"{power.key!r} is {value:.9g}, which is no power of {power.beta:g}, torch's beta: "
            "the checkpoint was trained with other betas",
            power.key,
        )
    return steps


def _steps(value: float, beta: float, dtype: torch.dtype) -> int | None:
    """The t for which a power is beta ** (t + 1); None if there is none."""
    if not 0 < beta < 1 or value == 1:
        return None
    rounded = float(_rounded(beta, dtype))
    estimate = math.log(value) / math.log(rounded)
    # Each multiplication is off by half an epsilon at most; so many steps the estimate is off.
    slack = estimate * float(torch.finfo(dtype).eps) / -math.log(rounded)
    last = round(estimate + slack) + 2
    if last > _MAX_STEPS:
        return round(estimate) - 1
    powers = _powers(beta, dtype, 1 << last.bit_length())
    at = int(np.abs(powers - value).argmin())
    off = abs(float(powers[at]) / value - 1)
    return at if off <= _ROUNDINGS * float(torch.finfo(dtype).eps) else None


@functools.lru_cache(maxsize=8)
def _powers(beta: float, dtype: torch.dtype, count: int) -> np.ndarray[tuple[int], np.dtype]:
    """beta, beta * beta, ... each rounded, as TensorFlow multiplies them."""
    return np.multiply.accumulate(np.full(count, _rounded(beta, dtype)))


def _rounded(beta: float, dtype: torch.dtype) -> np.floating:
    scalar: Callable[[float], np.floating] = _NUMPY.get(dtype, np.float32)
    return scalar(beta)
