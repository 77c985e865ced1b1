"""Fixtures that several test files of this folder share."""

from __future__ import annotations

import pytest
from bundle_writer import write_bundle
from warm_start_helpers import float_entry


@pytest.fixture
def tf_checkpoint(tmp_path):
    def write(**tensors):
        prefix = str(tmp_path / "model.ckpt-1")
        write_bundle(prefix, [float_entry(key, values) for key, values in tensors.items()])
        return prefix

    return write
