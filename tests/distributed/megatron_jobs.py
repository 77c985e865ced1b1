"""Layers that the real Megatron-LM has cut, on CPUs."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of kernels for GPUs that are not there
    from megatron.core import parallel_state
    from megatron.core.model_parallel_config import ModelParallelConfig
    from megatron.core.tensor_parallel import (
        ColumnParallelLinear,
        RowParallelLinear,
        VocabParallelEmbedding,
    )

from torch import nn

import torch_warmstart as tws


class Cut(nn.Module):
    """A table by rows, a layer by rows, one by columns, and a norm that all have."""

    def __init__(self, size: int) -> None:
        super().__init__()
        config = ModelParallelConfig(tensor_model_parallel_size=size, use_cpu_initialization=True)
        how = {"config": config, "init_method": nn.init.normal_}
        self.table = VocabParallelEmbedding(8, 4, **how)
        self.up = ColumnParallelLinear(4, 6, **how)
        self.down = RowParallelLinear(
            6, 4, bias=True, input_is_parallel=True, skip_bias_add=False, **how
        )
        self.norm = nn.LayerNorm(4)


def tensor_parallel(size: int) -> str:
    """What is said of it, where it is cut and where it is not; "": it was filled."""
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=size)
    try:
        model = Cut(size)
        old = {name: torch.ones_like(tensor) for name, tensor in model.named_parameters()}
        try:
            tws.warm_start(model, old)
        except tws.UnsupportedError as error:
            return str(error)
        assert all(torch.equal(value, torch.ones_like(value)) for value in model.parameters())
        return ""
    finally:
        parallel_state.destroy_model_parallel()
        dist.barrier()
