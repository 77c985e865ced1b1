"""Names out of files that no path can be made of are refused before any is."""

from __future__ import annotations

import json

import pytest
import torch

import torch_warmstart as tws

NAMES = ["\ud800.safetensors", "a/" * 3000 + "m", "x" * 70_000, "a\0b"]


@pytest.mark.parametrize("name", NAMES, ids=["surrogate", "deep", "long", "nul"])
def test_an_index_that_names_one_is_corrupt(tmp_path, name):
    index = {"metadata": {}, "weight_map": {"weight": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(tws.CorruptCheckpointError, match="which is not in its directory") as error:
        tws.warm_start(torch.nn.Linear(2, 2), str(tmp_path))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["a/" * 3000 + "m", "x" * 70_000], ids=["deep", "long"])
def test_a_state_file_that_names_one_is_no_error_of_the_system(tmp_path, name):
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    with pytest.raises(tws.CheckpointError):
        tws.load_checkpoint(str(tmp_path))


@pytest.mark.parametrize("path", ["x" * 5000, "a/" * 3000, "\ud800", "a\0b"])
def test_what_a_user_names_is_not_there(path):
    with pytest.raises(tws.CheckpointNotFoundError):
        tws.load_checkpoint(path)
