"""Models that DDP or FSDP have wrapped keep their vocabulary: both hold tensors besides."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

import torch_warmstart as tws

_INFO = tws.VocabInfo(["c", "a"], old_vocab=["a", "b", "c", "d"])


@pytest.fixture
def alone(tmp_path):
    """A group of this process only."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _wrapped(kind: str) -> nn.Module:
    model = nn.Sequential(nn.Embedding(4, 3))
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


@pytest.mark.parametrize(
    ("kind", "text"), [("ddp", "in its buckets"), ("fsdp", "before the model")]
)
def test_what_wrappers_hold_is_refused(alone, kind, text):
    model = _wrapped(kind)
    before = [id(parameter) for parameter in model.parameters()]
    with pytest.raises(tws.PlanError, match=text) as raised:
        tws.change_vocabulary(model, {"0.weight": _INFO})
    assert raised.value.problems[0].code == "model-is-fixed"
    assert [id(parameter) for parameter in model.parameters()] == before
    assert torch.is_tensor(next(model.parameters()))
