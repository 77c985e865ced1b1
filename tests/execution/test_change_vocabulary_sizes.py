"""A layer says the sizes that its new tensors have, or nothing of it changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torch_warmstart as tws

INFO = tws.VocabInfo(["b", "new", "c"], old_vocab=["a", "b", "c", "d"])
COLUMNS = tws.SegmentInfo({"p": 2, "q": 2}, {"p": 2, "r": 1})


@pytest.mark.parametrize("made", [nn.Embedding, nn.EmbeddingBag])
def test_a_table_of_another_width_says_it(made: Any) -> None:
    model = nn.Sequential(made(4, 3))
    tws.change_vocabulary(model, {"0.weight": [INFO, COLUMNS]})
    assert (model[0].num_embeddings, model[0].embedding_dim) == (3, 4)
    assert model[0].weight.shape == (3, 4)


def test_a_linear_of_other_inputs_says_them() -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    tws.change_vocabulary(model, {"0.weight": [INFO, COLUMNS]})
    assert (model[0].in_features, model[0].out_features) == (4, 3)
    assert model(torch.ones(2, 4)).shape == (2, 3)


class Derived(nn.LayerNorm):
    pass


@pytest.mark.parametrize(
    "layer",
    [
        nn.LayerNorm(4),
        nn.RMSNorm(4),
        nn.BatchNorm1d(4),
        nn.GroupNorm(2, 4),
        nn.PReLU(4),
        nn.GRUCell(3, 4),
        nn.ConvTranspose1d(4, 2, 3),
        Derived(4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_with_sizes_of_its_own_is_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential(layer)
    before = dict(model.named_parameters())
    with pytest.raises(tws.PlanError, match=f"is of a {type(layer).__name__}, whose sizes are not"):
        tws.change_vocabulary(model, {next(iter(before)): INFO})
    assert all(before[name] is tensor for name, tensor in model.named_parameters())


def test_a_layer_within_one_with_sizes_of_its_own_is_refused() -> None:
    model = nn.Sequential(nn.AdaptiveLogSoftmaxWithLoss(4, 6, [3]))
    with pytest.raises(tws.PlanError, match="is in a AdaptiveLogSoftmaxWithLoss, whose sizes"):
        tws.change_vocabulary(model, {"0.head.weight": INFO})


def test_a_model_derived_from_a_layer_has_tables_of_its_own() -> None:
    class Model(nn.Transformer):
        def __init__(self) -> None:
            super().__init__(4, 2, 1, 1, 4, batch_first=True)
            self.tokens = nn.Embedding(4, 4)

    model = Model()
    tws.change_vocabulary(model, {"tokens.weight": INFO})
    assert model.tokens.num_embeddings == 3


def test_what_is_no_layer_of_torch_s_has_sizes_that_are_its_own() -> None:
    model = nn.Module()
    model.tables = nn.ParameterList([nn.Parameter(torch.arange(8.0).view(4, 2))])
    model.seen = nn.Buffer(torch.arange(4.0))
    tws.change_vocabulary(model, {"tables.0": INFO, "seen": INFO})
    assert model.tables[0].tolist() == [[2, 3], [0, 0], [4, 5]]
    assert model.seen.tolist() == [1, 0, 2]


class Packed(nn.Module):
    """As quantised layers are: its weight is a method."""

    def weight(self) -> torch.Tensor:
        return torch.ones(4, 2)


@pytest.mark.parametrize("name", ["0", "0.weight"])
def test_a_weight_that_is_packed_is_refused_as_that(name: str) -> None:
    with pytest.raises(tws.PlanError, match="is of a Packed that packs its weight, as quantised"):
        tws.change_vocabulary(nn.Sequential(Packed()), {name: INFO})
