"""Who wrote shards: whichever header says it, not only the first one's."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import torch_warmstart as tws


def test_a_later_shard_may_be_the_one_whose_header_says_it(tmp_path):
    kernel = torch.arange(16.0).view(4, 4)
    save_file({"fc.bias": torch.ones(4)}, tmp_path / "a.safetensors")
    save_file({"fc.kernel": kernel}, tmp_path / "b.safetensors", metadata={"format": "pt"})
    shards = {"fc.bias": "a.safetensors", "fc.kernel": "b.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(tws.PlanError, match=r"fc\.weight is not in the checkpoint"):
        tws.warm_start(nn.ModuleDict({"fc": nn.Linear(4, 4)}), index)
