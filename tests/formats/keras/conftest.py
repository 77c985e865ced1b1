"""Fixtures that several test files of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keras_files_helpers import Write
from keras_names_helpers import LIBRARIES


@pytest.fixture
def h5(tmp_path: Path) -> Callable[..., Path]:
    """Writes an HDF5 file, however a function fills it."""
    h5py = pytest.importorskip("h5py")

    def write(fill: Write, name: str = "f.h5", **options: Any) -> Path:
        with h5py.File(tmp_path / name, "w", **options) as file:
            fill(file)
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def libraries() -> dict[str, Any]:
    """Both libraries, by name."""
    pytest.importorskip("tensorflow")
    return {name: pytest.importorskip(name) for name in LIBRARIES}
