"""A model that the real DeepSpeed has partitioned by ZeRO-3, on CPUs."""

from __future__ import annotations

import os
import sys

import deepspeed
import torch
import torch.distributed as dist
from jobs import old_state
from sharded_models import Tower

import torch_warmstart as tws

_CONFIG = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}


def zero_3() -> tuple[str, list[str]]:
    """What is said of it, and which parameters are not the checkpoint's behind the line it says."""
    torch.manual_seed(1)
    os.environ["LOCAL_RANK"] = str(dist.get_rank())
    # It would compile a kernel for that, for minutes.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    with deepspeed.zero.Init(config_dict_or_path=_CONFIG, dtype=torch.float32):
        model = Tower()
    text = ""
    try:
        tws.warm_start(model, old_state())
    except tws.UnsupportedError as error:
        text = str(error)
    with deepspeed.zero.GatheredParameters(list(model.parameters()), modifier_rank=0):
        if dist.get_rank() == 0:
            tws.warm_start(model, old_state())
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        found = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    # Where the processor has bfloat16, DeepSpeed makes parameters of that, whatever it is told.
    old = {
        name: tensor.to(found[name].dtype) for name, tensor in old_state().items() if name in found
    }
    return text, [name for name, tensor in found.items() if not torch.equal(tensor, old[name])]
