"""Fixtures that several test files of this folder share."""

from __future__ import annotations

import pytest
from bundle_writer import write_bundle
from tensorflow_slots_helpers import entry


@pytest.fixture
def tf_checkpoint(tmp_path):
    def write(tensors):
        prefix = str(tmp_path / "model.ckpt-1")
        write_bundle(prefix, [entry(key, values) for key, values in sorted(tensors.items())])
        return prefix

    return write
