"""What a user's initialiser makes of a whole tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_warmstart.dtypes import NO_PLAIN_TENSOR, lies_in_memory, loses_values
from torch_warmstart.errors import CallbackError, SettingsError, WarmStartError, check_kind
from torch_warmstart.new_rows.composing import label_of
from torch_warmstart.new_rows.mixture import Mixture
from torch_warmstart.settings import Initializer, takes_new_rows


def asked_of(name: str, ask: Callable[[], Any]) -> Any:
    """What a user's function returns; raises CallbackError, with its name, where it raises."""
    try:
        return ask()
    except WarmStartError:
        raise
    except Exception as error:
        raise CallbackError(f"{name} raised {type(error).__name__}: {error}") from error


def initialised(
    name: str,
    initializer: Initializer,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    *,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """A tensor that nobody else holds, filled by an initialiser as those of `torch.nn.init`.

    Args:
        name: What the initialiser is called, for messages.
        initializer: It gets a tensor of zeros, and fills it in place or returns another one.
        shape: Of that tensor: the whole one, so that fan-based initialisers are right.
        dtype: Of that tensor, and of the result.
        device: Where it is, unless there is a generator.
        generator: Passed on as `generator=`; the tensor is then where the generator is.

    Raises:
        SettingsError: it returns something else than a tensor of the shape.
        CallbackError: it raises.
    """
    if generator is not None:
        check_kind("generator", generator, torch.Generator, "a torch.Generator")
    if takes_new_rows(initializer):
        raise SettingsError(
            f"{name}: {label_of(initializer)} makes new rows of old ones, which only warm_start() "
            "and what plans like it can do; give a function such as torch.nn.init.normal_."
        )
    place = device if generator is None else generator.device
    fresh = torch.zeros(shape, dtype=dtype, device=place)
    further = {} if generator is None else {"generator": generator}
    with torch.no_grad():
        made = asked_of(name, lambda: initializer(fresh, **further))
    made = fresh if made is None else made
    if isinstance(made, Mixture):
        raise SettingsError(
            f"{name} returned a Mixture, and is not known to be told of new rows: annotate its "
            "first parameter, `new: tws.NewRows`."
        )
    if not isinstance(made, torch.Tensor) or made.shape != shape:
        found = list(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
        raise SettingsError(
            f"{name} must fill the tensor it gets or return one of its shape, {list(shape)}; it "
            f"returned {found}."
        )
    if not lies_in_memory(made):
        raise SettingsError(f"{name} returned {NO_PLAIN_TENSOR}")
    if loses_values(made, dtype):
        raise SettingsError(
            f"{name} returned {made.dtype} with values that {dtype} cannot hold: return {dtype}."
        )
    is_own = made is fresh and made.dtype == dtype
    return made if is_own else made.detach().to(dtype, copy=True)
