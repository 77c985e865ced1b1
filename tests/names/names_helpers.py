"""What the tests of names share."""

from __future__ import annotations

import pytest

import torch_warmstart as tws
from torch_warmstart import PlanError, WarmStartSettings


def linear(path, rows=2, columns=2):
    return {f"{path}/kernel": (rows, columns), f"{path}/bias": (columns,)}


def keys_of(model, checkpoint, rules=None, **settings):
    """The keys that each variable is planned to come from; the last item of a tuple is its key."""
    settings.setdefault("vars_to_warm_start", ".*")
    made = WarmStartSettings(checkpoint, var_name_to_prev_var_name=rules, **settings)
    plan = tws.plan_warm_start(model, made)
    return {item.name: "+".join(item.keys) for item in plan.items if item.state != "kept"}


def error(model, checkpoint, rules=None, **settings):
    with pytest.raises(PlanError) as caught:
        keys_of(model, checkpoint, rules, **settings)
    return str(caught.value)
