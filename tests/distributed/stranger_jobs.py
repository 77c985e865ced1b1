"""Models that are sharded by what does not say how."""

from __future__ import annotations

import torch
from jobs import old_state
from sharded_models import Tower
from torch.distributed.fsdp import FullyShardedDataParallel

import torch_warmstart as tws


def fsdp1(use_orig_params: bool) -> tuple[str, bool]:
    """What is said of FSDP1, and whether the line that it says works."""
    torch.manual_seed(1)
    device = torch.device("cpu")
    model = FullyShardedDataParallel(Tower(), device_id=device, use_orig_params=use_orig_params)
    text = ""
    try:
        tws.warm_start(model, old_state())
    except tws.UnsupportedError as error:
        text = str(error)
    with FullyShardedDataParallel.summon_full_params(model):
        tws.warm_start(model, tws.WarmStartSettings(old_state(), [".*"]))
    with FullyShardedDataParallel.summon_full_params(model):
        found = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    return text, all(torch.equal(found[name], tensor) for name, tensor in old_state().items())
