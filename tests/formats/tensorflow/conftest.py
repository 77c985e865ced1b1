"""Fixtures that several test files of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_writer import DType
from v1_helpers import in_rows
from v1_writer import whole, write_v1


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Three files: one tensor in one of them, one across all."""
    tensors = [in_rows("x", 1, 1, 1, files=(2, 0, 1)), whole("y", DType.INT32, [], [-5], file=1)]
    write_v1(tmp_path / "run" / "model", tensors, num_files=3)
    (tmp_path / "run" / "checkpoint").write_text('model_checkpoint_path: "model-?????-of-00003"\n')
    return tmp_path / "run" / "model"
