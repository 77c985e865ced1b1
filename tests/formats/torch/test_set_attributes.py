"""What a file sets on the objects in it is not taken for their methods."""

from __future__ import annotations

import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

import torch_warmstart as tws

NAMES = ["is_conj", "data_ptr", "stride", "numel", "detach", "is_neg", "size", "ds_id"]
OF_MAPPINGS = ["items", "keys", "get", "values", "__len__", "_metadata", "copy"]
VALUES = {"a text": "x", "a class": OrderedDict, "a dtype": torch.float32}
W = torch.arange(6.0).reshape(2, 3)


def _save(path, state, holder, name, value):
    """A torch file in which an attribute of one of its objects is called so."""
    holder.placeholder = value
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            renamed = data.replace(_text("placeholder"), _text(name))
            assert renamed != data or not member.endswith("data.pkl")
            archive.writestr(member, renamed)


def _text(name):
    return b"X" + struct.pack("<I", len(name)) + name.encode()


def _settings(path, moves):
    info = tws.VocabInfo(["a", "b"], 2, 0, ["b", "a"])
    return tws.WarmStartSettings(path, ".*", {"": info} if moves else {})


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_is_read_whatever_is_set_on_it(name, value, tmp_path):
    state = {"weight": W.clone(), "bias": torch.ones(2)}
    _save(path := tmp_path / "a.pt", state, state["weight"], name, value)
    for moves in (False, True):
        model = nn.Linear(3, 2)
        tws.warm_start(model, _settings(path, moves))
        assert torch.equal(model.weight, W.flip(0) if moves else W)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("name", OF_MAPPINGS)
def test_a_mapping_is_read_whatever_is_set_on_it(name, value, tmp_path):
    state = nn.Linear(3, 2).state_dict()
    _save(path := tmp_path / "a.pt", {"model": state, "epoch": 3}, state, name, value)
    model = nn.Linear(3, 2)
    tws.warm_start(model, path)
    assert torch.equal(model.weight, state["weight"])
