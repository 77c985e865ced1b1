"""Names that somebody else changes when a model is loaded: its own hooks, or its library."""

from __future__ import annotations

from collections.abc import Mapping

from torch_warmstart.values import frozen

# How a name was found; here, so that who asks for it imports neither of the two.
BY_HOOK = "renamed by a load hook of the model"
BY_TRANSFORMERS = "renamed as transformers does"


@frozen
class Renamed:
    """Keys by the model's names that they become.

    Args:
        keys: By name; "" for what is made anew of several tensors, which a plan cannot follow.
        how: It was found, for who reads a plan.
        by: Who makes such tensors, for an error about one.
        instead: What to do then; to follow "Let it do that: ".
    """

    keys: Mapping[str, str]
    how: str
    by: str
    instead: str
