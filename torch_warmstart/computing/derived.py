"""What torch has made of a model's tensors, and goes on using whatever they hold since.

Its caches are emptied where tensors get other values. A program that was compiled with values in it
(inductor's `freezing`) can only be told: it belongs to whoever compiled it.
"""

from __future__ import annotations

import sys

import torch
from torch.nn.utils import parametrize


def forget_derived() -> None:
    """Makes torch work out anew what it has made of tensors that may hold other values now.

    Casts of weights that autocast keeps until it is left, and weights that `parametrize.cached()`
    does: `load_state_dict` leaves both, and the next batch is computed with what was there.
    """
    torch.clear_autocast_cache()
    getattr(parametrize, "_cache", {}).clear()


def has_frozen_programs() -> bool:
    """Whether this process may have a program with the values of weights in it.

    What puts them there is imported when that is first done. A program that torch has cached on
    disk needs it no more, so the option counts, too, where anything has been compiled.
    """
    config = sys.modules.get("torch._inductor.config")
    compiles = "torch._inductor.compile_fx" in sys.modules
    has_frozen = "torch._inductor.freezing" in sys.modules
    return has_frozen or (compiles and bool(getattr(config, "freezing", False)))
