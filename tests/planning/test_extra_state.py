"""What a module keeps beside its tensors is accounted for."""

from __future__ import annotations

import torch
from torch import nn

import torch_warmstart as tws


class Counting(nn.Linear):
    count = 0

    def get_extra_state(self):
        return {"count": self.count}

    def set_extra_state(self, state):
        self.count = state["count"]


def test_an_extra_state_that_is_not_taken_is_listed(tmp_path):
    old, new = nn.Sequential(Counting(2, 2)), nn.Sequential(Counting(2, 2))
    old[0].count = 5
    torch.save(old.state_dict(), tmp_path / "old.pt")
    for source in (old.state_dict(), str(tmp_path / "old.pt"), old):
        report = tws.warm_start(new, source)
        assert report.unexpected_keys == ("0._extra_state",)
        assert [note.code for note in report.notes] == ["extra-state-left"]
        assert new[0].count == 0
        assert torch.equal(new[0].weight, old[0].weight)


class Keeping(nn.Linear):
    """As TransformerEngine, whose extra state is a tensor of bytes."""

    def get_extra_state(self):
        return torch.ones(3, dtype=torch.uint8)

    def set_extra_state(self, state):
        raise AssertionError


def test_one_that_is_a_tensor_is_listed_and_said_too():
    report = tws.warm_start(nn.Sequential(Keeping(2, 2)), nn.Sequential(Keeping(2, 2)).state_dict())
    assert report.unexpected_keys == ("0._extra_state",)
    assert [note.code for note in report.notes] == ["extra-state-left"]
