"""New rows of what is no weight, where a layer's name stands for all that it has."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import torch_warmstart as tws
from torch_warmstart import VocabInfo, WarmStartSettings

INITIALIZERS = {"zeros": None, "a function": nn.init.normal_, "the mean": tws.init.mean()}


def _grown(make, initializer):
    """A layer of three rows, from one of two: the last row is new."""
    model = nn.Sequential(make(3))
    info = VocabInfo(["a", "b", "new"], old_vocab=["a", "b"], backup_initializer=initializer)
    settings = WarmStartSettings(nn.Sequential(make(2)), [".*"], {"0": info})
    return model[0], tws.warm_start(model, settings)


def _pruned(size):
    layer = prune.identity(nn.Linear(2, size), "weight")
    layer.weight_mask[:, 0] = 0 if size == 2 else 1
    return layer


@pytest.mark.parametrize("what", INITIALIZERS)
def test_statistics_begin_as_the_module_begins_them(what):
    layer, report = _grown(nn.BatchNorm1d, INITIALIZERS[what])
    assert (layer.running_mean[2], layer.running_var[2]) == (0, 1)
    assert report["0.running_var"].rows.left == 1
    assert report["0.weight"].rows.initialised == 1


@pytest.mark.parametrize("what", INITIALIZERS)
def test_new_rows_are_not_pruned(what):
    layer, _ = _grown(_pruned, INITIALIZERS[what])
    assert layer.weight_mask.tolist() == [[0, 1], [0, 1], [1, 1]]


def test_vectors_of_a_norm_are_no_weights():
    def make(size):
        return parametrizations.spectral_norm(nn.Linear(2, size))

    torch.manual_seed(0)
    began = make(3).parametrizations.weight[0]._u[2].clone()
    torch.manual_seed(0)
    layer, _ = _grown(make, nn.init.ones_)
    assert layer.parametrizations.weight[0]._u[2] == began


def test_what_is_named_itself_begins_as_is_said():
    model = nn.Sequential(nn.BatchNorm1d(3))
    info = VocabInfo(["a", "b", "new"], old_vocab=["a", "b"], backup_initializer=nn.init.zeros_)
    infos = {f"0.{name}": info for name in ("weight", "bias", "running_mean", "running_var")}
    tws.warm_start(model, WarmStartSettings(nn.Sequential(nn.BatchNorm1d(2)), [".*"], infos))
    assert model[0].running_var[2] == 0
