"""What Windows does not have, and is done without: calls of POSIX for descriptors.

Of a mapped file Windows lets nobody cut anything, so that none of it is copied by system calls.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.storage import leases

LACKED = ("fchmod", "pwrite", "preadv", "memfd_create", "O_CLOEXEC", "O_NONBLOCK")


@pytest.fixture(autouse=True)
def windows(monkeypatch):
    for name in LACKED:
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(leases, "_CAN_BE_CUT", False)
    monkeypatch.setattr(leases.Leases, "_take", lambda self, path: None)


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "v.vocab"
    path.write_text("before")
    tws.Vocabulary.load(["a", "b"]).save(path)
    assert len(tws.Vocabulary.load(path)) == 2


def test_a_model_is_its_own_source():
    model = nn.Embedding(3, 2)
    before = model.weight.detach().clone()
    vocab = tws.VocabInfo(["b", "c", "a"], old_vocab=["a", "b", "c"])
    settings = tws.WarmStartSettings(model.state_dict(), var_name_to_vocab_info={"weight": vocab})
    tws.warm_start(model, settings)
    assert torch.equal(model.weight, before[[1, 2, 0]])


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_what_is_written_is_read(tmp_path, kind):
    source, model = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(source.state_dict(), tmp_path / "old.pt")
    tws.convert(tmp_path / "old.pt", tmp_path / f"new.{kind}", model=model)
    tws.warm_start(model, tws.WarmStartSettings(tmp_path / f"new.{kind}"))
    assert torch.equal(model.weight, source.weight)
