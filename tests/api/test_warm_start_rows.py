"""Warm starts through a vocabulary, end to end: which rows move, and what new rows hold."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from warm_start_helpers import Tagger, vocab

import torch_warmstart as tws
from torch_warmstart import VocabInfo, WarmStartSettings

# -- vocabularies ----------------------------------------------------------------------------------


def test_rows_follow_the_vocabulary(tf_checkpoint, device):
    prefix = tf_checkpoint(**{"embed/embeddings": [[0, 1], [2, 3], [4, 5], [6, 7]]})
    model = Tagger().to(device)
    report = tws.warm_start(model, WarmStartSettings(prefix, None, {"embed/weight": vocab()}))
    assert model.embed.weight.tolist() == [[6, 7], [0, 0], [0, 1]]
    assert report["embed.weight"].rows == tws.RowAccount(
        total=3,
        copied=2,
        oov_copied=0,
        initialised=1,
        oov_initialised=0,
        left=0,
        dropped=2,
        old_unused=0,
    )
    assert report["out.weight"].reason == "not selected"


def test_an_embedding_bag_and_a_bias_without_a_second_axis_are_remapped():
    model = nn.ModuleDict({"bag": nn.EmbeddingBag(3, 2), "out": nn.Linear(2, 3)})
    state = {
        "bag.weight": torch.arange(8.0).reshape(4, 2),
        "out.weight": torch.arange(8.0).reshape(4, 2),
        "out.bias": torch.arange(4.0),
    }
    names = ("bag.weight", "out.weight", "out.bias")
    tws.warm_start(model, WarmStartSettings(state, None, dict.fromkeys(names, vocab())))
    assert model["bag"].weight.tolist() == [[6, 7], [0, 0], [0, 1]]
    assert model["out"].weight.tolist() == [[6, 7], [0, 0], [0, 1]]
    assert model["out"].bias.tolist() == [3, 0, 0]


def test_the_classes_of_a_tf_dense_kernel_are_axis_0_of_the_linear_weight(tf_checkpoint):
    prefix = tf_checkpoint(
        **{"out/kernel": [[0, 1, 2, 3], [10, 11, 12, 13]], "out/bias": [0, 1, 2, 3]}
    )
    model = Tagger(classes=3)
    vocabs = {"out.weight": vocab(), "out.bias": vocab()}
    tws.warm_start(model, WarmStartSettings(prefix, "out", vocabs))
    assert model.out.weight.tolist() == [[3, 13], [0, 0], [0, 10]]
    assert model.out.bias.tolist() == [3, 0, 0]


@pytest.mark.parametrize("axis", [1, -1])
def test_another_axis_can_be_remapped(axis):
    model = nn.ParameterDict({"w": torch.zeros(2, 3)})
    state = {"w": torch.arange(8.0).reshape(2, 4)}
    tws.warm_start(model, WarmStartSettings(state, None, {"w": vocab(axis=axis)}))
    assert model["w"].tolist() == [[3, 0, 0], [7, 0, 4]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.float8_e4m3fn])
def test_any_dtype_and_rank_is_remapped(dtype):
    model = nn.Module()
    model.register_buffer("table", torch.ones(3, 1, 2).to(dtype))
    state = {"table": torch.arange(8.0).reshape(4, 1, 2).to(dtype)}
    tws.warm_start(model, WarmStartSettings(state, None, {"table": vocab()}))
    assert model.table.to(torch.float32).tolist() == [[[6, 7]], [[0, 0]], [[0, 1]]]


def test_a_remapped_table_is_cast_too():
    model = nn.Embedding(3, 2, dtype=torch.float64)
    state = {"weight": torch.arange(8, dtype=torch.bfloat16).reshape(4, 2)}
    tws.warm_start(model, WarmStartSettings(state, None, {"weight": vocab()}))
    assert model.weight.tolist() == [[6, 7], [0, 0], [0, 1]]


def test_the_backup_initializer_gets_the_full_shape_and_fills_new_and_oov_rows():
    shapes = []

    def initializer(tensor):
        shapes.append(tuple(tensor.shape))
        nn.init.constant_(tensor, 9)

    model = nn.Embedding(5, 2)
    info = vocab(num_oov_buckets=2, backup_initializer=initializer)
    state = {"weight": torch.arange(12.0).reshape(6, 2)}
    report = tws.warm_start(model, WarmStartSettings(state, None, {"weight": info}))
    assert shapes == [(5, 2)]
    assert model.weight.tolist() == [[6, 7], [9, 9], [0, 1], [9, 9], [9, 9]]
    rows = report["weight"].rows
    assert (rows.initialised, rows.oov_initialised, rows.old_unused) == (1, 2, 2)


def test_an_initializer_may_return_its_tensor():
    model = nn.Embedding(3, 2)
    info = vocab(backup_initializer=lambda tensor: torch.full_like(tensor, 4))
    tws.warm_start(model, WarmStartSettings({"weight": torch.zeros(4, 2)}, None, {"weight": info}))
    assert model.weight[1].tolist() == [4, 4]


def test_a_seeded_generator_makes_new_rows_reproducible():
    rows = []
    for _ in range(2):
        model = nn.Embedding(3, 2)
        info = vocab(
            backup_initializer=nn.init.xavier_uniform_,
            generator=torch.Generator().manual_seed(7),
        )
        tws.warm_start(
            model, WarmStartSettings({"weight": torch.zeros(4, 2)}, None, {"weight": info})
        )
        rows.append(model.weight[1].tolist())
    assert rows[0] == rows[1] != [0, 0]


def test_new_rows_can_stay_as_the_model_has_them():
    model = nn.Embedding(4, 2)
    before = model.weight.clone()
    info = vocab(num_oov_buckets=1, backup_initializer="keep")
    report = tws.warm_start(
        model, WarmStartSettings({"weight": torch.zeros(4, 2)}, None, {"weight": info})
    )
    assert torch.equal(model.weight[[1, 3]], before[[1, 3]])
    assert model.weight[[0, 2]].tolist() == [[0, 0], [0, 0]]
    assert report["weight"].rows.left == 2


def test_old_oov_rows_are_copied_only_on_request():
    state = {"weight": torch.arange(12.0).reshape(6, 2)}
    for old_oov, expected in ((0, [[0, 0], [0, 0]]), (2, [[8, 9], [10, 11]])):
        model = nn.Embedding(5, 2)
        info = vocab(num_oov_buckets=2, old_num_oov_buckets=old_oov)
        tws.warm_start(model, WarmStartSettings(state, None, {"weight": info}))
        assert model.weight[3:].tolist() == expected


def test_a_vocabulary_of_ids_and_sizes_shorter_than_the_vocabularies():
    model = nn.Embedding(2, 1)
    info = VocabInfo([30, 10, 20], 2, 0, [10, 20, 30], old_vocab_size=2)
    state = {"weight": torch.tensor([[1.0], [2], [3]])}
    report = tws.warm_start(model, WarmStartSettings(state, None, {"weight": info}))
    assert model.weight.tolist() == [[0], [1]]
    assert report["weight"].rows.old_unused == 1
