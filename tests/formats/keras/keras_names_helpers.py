"""What the tests of names in Keras's files share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

TIME, WIDE, UNITS, HEADS, BATCH = 5, 4, 3, 2, 2
FLAT, SEQUENCE, IMAGE = (WIDE,), (TIME, WIDE), (6, 6, WIDE)
LIBRARIES = ["keras", "tf_keras"]


def save(model: Any, path: Path) -> Path:
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(str(path))
    return path


def by_two(layer: Any) -> Callable[[Any], Any]:
    return lambda x: layer(x, x)
