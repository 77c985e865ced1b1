"""V1 checkpoints of public projects; `test_real_checkpoints.py` says where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from formats_helpers import TORCH_DTYPES
from test_real_checkpoints import FOLDER, V1, VARIABLE, by_prefix, digest, manifest

import torch_warmstart as tw

pytestmark = pytest.mark.skipif(not V1, reason=f"{VARIABLE} names no folder of real checkpoints")

PREFIXES = {about["prefix"] for about in V1}
STATE_FILES = [about for about in manifest("state_files") if about["latest_checkpoint"] in PREFIXES]


@by_prefix(V1)
def test_a_real_v1_checkpoint_is_read_as_tensorflow_reads_it(about: dict[str, Any]) -> None:
    with tw.load_checkpoint(FOLDER / about["prefix"]) as checkpoint:
        assert checkpoint.format == "TensorFlow V1 checkpoint"
        assert sorted(checkpoint) == sorted(about["tensors"])
        for key, tensor in about["tensors"].items():
            spec = checkpoint.spec(key)
            assert list(spec.shape) == tensor["shape"]
            assert spec.dtype == TORCH_DTYPES[tensor["dtype"]]
            value = checkpoint.get_tensor(key)
            assert digest(value) == tensor["sha256"], key
            if spec.shape and spec.shape[0]:
                last = torch.tensor([spec.shape[0] - 1])
                assert torch.equal(checkpoint.get_tensor(key, last), value[-1:])


@pytest.mark.parametrize("about", STATE_FILES, ids=lambda about: str(about["path"]))
def test_a_real_state_file_that_names_v1_is_followed(about: dict[str, Any]) -> None:
    directory = (FOLDER / about["path"]).parent

    found = tw.latest_checkpoint(directory)

    assert found is not None
    assert Path(found) == FOLDER / about["latest_checkpoint"]
    assert tw.load_checkpoint(directory).url == found
