"""What is sharded by something that does not say how is refused, with the line that works."""

from __future__ import annotations

import sys
import types
from enum import Enum

import pytest
import stranger_jobs as jobs
import torch
from ranks import Ranks
from torch import nn

import torch_warmstart as tws


class Status(Enum):
    """DeepSpeed's."""

    AVAILABLE = 1
    NOT_AVAILABLE = 2


@pytest.mark.parametrize("use_orig_params", [False, True])
def test_fsdp1_is_refused_and_filled_while_it_is_whole(two: Ranks, use_orig_params: bool) -> None:
    for text, is_filled in two.run(jobs.fsdp1, use_orig_params):
        assert text.startswith("The model is wrapped by FullyShardedDataParallel (FSDP1)")
        assert "summon_full_params(model): tws.warm_start(model, settings)" in text
        assert is_filled


def test_zero_3_is_refused_unless_it_is_gathered() -> None:
    """As DeepSpeed marks its parameters; its own are in test_real_strangers.py."""
    model = nn.Linear(2, 2)
    old = model.state_dict()
    for number, parameter in enumerate(model.parameters()):
        parameter.ds_id, parameter.ds_status = number, Status.NOT_AVAILABLE
    with pytest.raises(tws.UnsupportedError, match=r"weight is partitioned by DeepSpeed.*Gathered"):
        tws.warm_start(model, old)
    for parameter in model.parameters():
        parameter.ds_status = Status.AVAILABLE
    tws.warm_start(model, old)


@pytest.mark.parametrize("size", [1, 2])
def test_a_piece_of_megatrons_is_refused(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """As Megatron marks its parameters; its own are in test_real_strangers.py."""
    state = types.ModuleType("megatron.core.parallel_state")
    state.get_tensor_model_parallel_world_size = lambda: size
    monkeypatch.setitem(sys.modules, "megatron.core.parallel_state", state)
    model = nn.Linear(2, 2)
    model.weight.tensor_model_parallel = True
    old = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    if size == 1:
        tws.warm_start(model, old)
        assert torch.equal(model.weight, torch.ones(2, 2))
    else:
        with pytest.raises(tws.UnsupportedError, match="weight is a piece of .* Megatron-LM"):
            tws.warm_start(model, old)
