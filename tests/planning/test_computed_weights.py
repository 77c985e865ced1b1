"""Weights that are computed when somebody asks for them, which may change what they are made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import torch_warmstart as tws
from torch_warmstart.layouts.tensorflow import Described, as_described, tf_forms

BIASES = {"0.bias": tws.VocabInfo(["b", "a", "c"], old_vocab=["a", "b"])}


NORMS = [parametrizations.spectral_norm, parametrizations.weight_norm]


@pytest.mark.parametrize("wrap", NORMS)
def test_what_the_file_says_of_a_layer_is_compared_without_its_weight(wrap, monkeypatch):
    layer = wrap(nn.Linear(4, 2))
    monkeypatch.setattr(parametrize.ParametrizationList, "forward", None)
    for leaf in (name for name, _ in layer.named_parameters() if "original" in name):
        (form, *_) = tf_forms(layer, leaf)
        into = tuple(layer.get_parameter(leaf).shape)
        shapes = {"shapes": [(4, 2)], "into": into}
        found = as_described(form, Described("dense", {}), module=layer, leaf=leaf, **shapes)
        assert found.refusal is None


def test_a_bias_beside_a_computed_weight_moves_nothing():
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 2)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(tws.PlanError, match="0.bias gets other rows and 0.weight does not"):
        tws.change_vocabulary(model, BIASES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
