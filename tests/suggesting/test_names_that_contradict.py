"""Names that are alike and say two things are never proposed as if they were sure."""

from __future__ import annotations

import pytest
import torch
from suggest_helpers import confidences
from torch import nn

import torch_warmstart as tws


def state(*layers, make=lambda: nn.Linear(8, 8)):
    return nn.ModuleDict({name: make() for name in layers}).state_dict()


def suggested(ours, theirs, make=lambda: nn.Linear(8, 8)):
    model = nn.ModuleDict({name: make() for name in ours})
    found = tws.suggest_names(model, state(*theirs, make=make))
    pairs = {
        item.variable.rpartition(".")[0]: item.names[0].rpartition(".")[0]
        for item in found.items
        if item.confidence != "low" and item.names
    }
    return pairs, found


def norm():
    return nn.LayerNorm(8)


def test_the_norm_behind_the_attention_is_not_that_of_it():
    ours = ("input_layernorm", "post_attention_layernorm")
    pairs, found = suggested(ours, ("attention_norm", "ffn_norm"), norm)
    assert pairs == {}
    (reason,) = {i.reason for i in found.items if i.variable.startswith("post")}
    assert "only one of them says 'post'" in reason


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("decoder_fc", "encoder_fc", "'decoder' is not 'encoder'"),
        ("critic_fc", "critic_target_fc", "only one of them says 'target'"),
        ("student_fc", "teacher_fc", "only one of them says 'teacher'"),
        ("attention_q", "attention_key", "'query' is not 'key'"),
        ("tower_user", "tower_item", "'user' is not 'item'"),
        ("in_projection", "out_projection", "'in' is not 'output'"),
    ],
)
def test_what_is_another_thing_is_not_sure_though_only_it_fits(ours, theirs, said):
    pairs, found = suggested([ours], [theirs])
    assert pairs == {}
    assert set(confidences(found).values()) == {"low"}
    assert all(said in item.reason for item in found.items)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("encoder_decoder_fc", "encoder_decoder_dense"),
        ("post_norm_fc", "fc_post_norm"),
        ("query_fc", "q_dense"),
        ("enc_projection", "encoder_projection"),
    ],
)
def test_what_says_the_same_is(ours, theirs):
    pairs, _ = suggested([ours], [theirs])
    assert pairs == {ours: theirs}


def test_a_word_that_all_tables_have_and_a_size_are_not_enough():
    ours = {"user_id": nn.Embedding(9, 4), "user_age": nn.Embedding(8, 4)}
    theirs = {"user_country_emb.weight": torch.zeros(8, 4)}
    found = tws.suggest_names(nn.ModuleDict(ours), theirs)
    assert {item.confidence for item in found.items if item.names} == {"low"}


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int64])
def test_what_no_cast_makes_a_weight_of_is_not_proposed(dtype):
    model = nn.ModuleDict({"emb": nn.Embedding(9, 4)})
    theirs = {"table.weight": torch.zeros(9, 4).to(dtype)}
    (item,) = tws.suggest_names(model, theirs).items
    assert (item.confidence, item.names) == ("none", ())
    theirs["half.weight"] = torch.zeros(9, 4, dtype=torch.bfloat16)
    (item,) = tws.suggest_names(model, theirs).items
    assert item.names == ("half.weight",)


def _stack(first, front=""):
    """Four layers of a stack, numbered from `first`."""
    layer = nn.ModuleDict({"fc": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
    return {
        f"{front}blocks.{number}.{name}": torch.randn(value.shape)
        for number in range(first, first + 4)
        for name, value in layer.state_dict().items()
    }


def _blocks():
    return nn.ModuleDict(
        {
            "blocks": nn.ModuleList(
                nn.ModuleDict({"fc": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}) for _ in range(4)
            )
        }
    )


def test_what_is_left_over_of_a_stack_is_not_surely_the_layer_that_is_missing():
    suggestions = tws.suggest_names(_blocks(), _stack(1))  # counted from 1: block 0 is 1 there
    assert {item.variable.split(".")[1] for item in suggestions.items} == {"0"}
    assert {item.confidence for item in suggestions.items} <= {"low", "none"}
    assert not suggestions.as_rules().names


def test_a_tensor_that_is_left_over_is_not_surely_one_of_another_number():
    source = _stack(0, "model.")
    for name in ("model.blocks.1.fc.weight", "model.blocks.2.fc.weight"):
        del source[name]
    suggestions = tws.suggest_names(_blocks(), source)
    sure = [item for item in suggestions.items if item.confidence == "high"]
    assert sure
    for item in sure:
        assert item.names == (f"model.{item.variable}",)


def test_what_two_heads_leave_over_is_not_each_others():
    """A head for one task has a dense layer, as that for another has, and the rest is the same."""
    shared = ("first", "second", "third")
    model, source = (nn.ModuleDict({n: nn.Linear(8, 4) for n in shared}) for _ in range(2))
    model.add_module("pooler", nn.ModuleDict({"dense": nn.Linear(8, 8)}))
    source.add_module("predictions", nn.ModuleDict({"dense": nn.Linear(8, 8)}))
    found = tws.suggest_names(model, source.state_dict())
    assert set(confidences(found).values()) == {"medium"}
    assert "most names are as they were" in found.items[0].reason
    assert not found.as_rules()


def test_what_is_left_over_behind_a_prefix_is_not_each_others():
    model = nn.ModuleDict({f"layer_{name}": nn.Linear(8, 4) for name in "abc"})
    source = nn.ModuleDict({"net": nn.ModuleDict(dict(model.items())), "task": nn.ModuleDict()})
    source["task"].add_module("dense", nn.Linear(8, 8))
    model.add_module("pooler", nn.ModuleDict({"dense": nn.Linear(8, 8)}))
    found = confidences(tws.suggest_names(model, source.state_dict()))
    assert {name for name, sure in found.items() if sure != "high"} == {
        "pooler.dense.weight",
        "pooler.dense.bias",
    }


def test_what_unsure_pairs_leave_over_is_not_sure():
    """A key's layer has no bias: taken for that of the outputs, it leaves them the key's weight."""

    def attention(*names: str) -> nn.ModuleDict:
        return nn.ModuleDict({name: nn.Linear(8, 8, bias="k" not in name) for name in names})

    def layers(*names: str) -> nn.ModuleDict:
        both = [{part: attention(*names) for part in ("self_attn", "encoder_attn")} for _ in "ab"]
        return nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict(one) for one in both])})

    theirs = layers("wk", "wv", "wq", "wo").state_dict()
    found = tws.suggest_names(layers("k_proj", "v_proj", "q_proj", "out_proj"), theirs)
    assert set(confidences(found).values()) == {"low"}
