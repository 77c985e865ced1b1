"""Patterns that select variables by name, and what one that takes nothing may have meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch_warmstart.errors import NEAR, near_names
from torch_warmstart.model.variables import Variable, canonical_name


def matches(pattern: str, name: str) -> bool:
    r"""Whether a selection pattern takes a variable's name.

    TensorFlow matches (`re.match`) against `name + ":0"`, and its documented `v2[^/]` finds `v2`
    only through that suffix; torch users expect `weight$` to work. With a newline as the suffix
    both do: `[^/]` takes it and `$` matches before it. A pattern that spells `:0` gets TensorFlow's
    suffix. One that spells `/`, and no `\.`, is matched against the name with slashes for dots,
    and only against that: it may be there to exclude (`spelt_for`).
    """
    suffix = ":0" if ":0" in pattern else "\n"
    return re.compile(pattern, re.DOTALL).match(spelt_for(pattern, name) + suffix) is not None


def spelt_for(pattern: str, name: str) -> str:
    """A variable's name as a pattern spells names: with slashes for dots, or as it is."""
    return name.replace(".", "/") if "/" in pattern and "\\." not in pattern else name


def select_matching(variables: Sequence[Variable], pattern: str) -> list[Variable]:
    """The variables of which any name matches."""
    return [v for v in variables if any(matches(pattern, name) for name in v.names)]


def nearest_to_pattern(pattern: str, variables: Sequence[Variable]) -> list[str]:
    """Names that a pattern which matched nothing may have meant."""
    literal = re.sub(r"\\(.)", r"\1", re.sub(r"\.\*|\.\+|[\^$()|?*+\[\]{}]", "", pattern))
    names = [name for variable in variables for name in variable.names]
    inside = [name for name in names if literal and canonical_name(literal) in name]
    return inside[:NEAR] or near_names(canonical_name(literal), names) or names[:NEAR]
