"""Objects that have a vocabulary: tokenizers and lookup layers, known by where they come from."""

from __future__ import annotations

from typing import Any

from torch_warmstart.entries import Vocabulary


def from_object(source: Any) -> Vocabulary | None:
    """The vocabulary of an object; None if it is none that is known."""
    del source
    return None
