"""What the comparisons with TensorFlow's own warm start share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_lines(path: Path, numbers: Sequence[int]) -> str:
    path.write_text("".join(f"entry {number}\n" for number in numbers))
    return str(path)


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if differ(ours[name], theirs[name])] == []


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype != other.dtype or one.shape != other.shape or one.tobytes() != other.tobytes()
