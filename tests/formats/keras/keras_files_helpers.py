"""What the tests of Keras's files share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Write = Callable[[Any], None]


def numbered(file: Any, folder: str, *arrays: Any, name: str | None = None) -> None:
    group = file.create_group(f"{folder}/vars")
    for number, array in enumerate(arrays):
        group[str(number)] = array
    if name:
        group.attrs["name"] = name


VECTOR, MATRIX = np.arange(3, dtype="f4"), np.arange(12, dtype="f4").reshape(4, 3)
