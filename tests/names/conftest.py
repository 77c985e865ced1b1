"""Fixtures that several test files of this folder share."""

from __future__ import annotations

import numpy as np
import pytest
from bundle_writer import BundleEntry, DType, write_bundle


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a TF checkpoint `c` of float tensors of these shapes, each element another number."""
    monkeypatch.chdir(tmp_path)

    def write(shapes):
        start, entries = 0, []
        for key, shape in sorted(shapes.items()):
            values = np.arange(start, start + np.prod(shape), dtype="<f4")
            start += len(values)
            entries.append(BundleEntry(key, DType.FLOAT, tuple(shape), values.tobytes()))
        write_bundle("c", entries)
        return "c"

    return write
