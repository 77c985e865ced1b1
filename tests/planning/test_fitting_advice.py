"""Advice on a tensor that does not fit is of use if it is followed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class One(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(shape))


def _refused(model, source, rules=None):
    with pytest.raises(tws.PlanError) as error:
        tws.plan_warm_start(model, tws.WarmStartSettings(source, ".*", None, rules))
    return str(error.value)


def test_a_vector_of_one_number_is_that_number_as_torch_has_it():
    model = One()
    tws.warm_start(model, {"scale": torch.tensor([3.0])})
    assert model.scale.item() == 3
    assert "'shaped[1]'" in _refused(One(1), {"scale": torch.tensor(3.0)})
    assert "ClipOrPad" not in _refused(One(1), {"scale": torch.tensor(3.0)})


def test_a_placeholder_of_zero3_is_said_to_be_one():
    text = _refused(One(4, 4), {"scale": torch.empty(0)})
    assert "zero_to_fp32.py" in text
    assert "ClipOrPad" not in text


@pytest.mark.parametrize(
    ("key", "rows"), [("in_proj_weight", 12), ("qkv.weight", 8), ("gate_up_proj.weight", 8)]
)
def test_layers_in_one_tensor_are_to_be_split(key, rows):
    model = nn.ModuleDict({"q": nn.Linear(4, 4, bias=False)})
    text = _refused(model, {key: torch.ones(rows, 4)}, {"q.weight": key})
    assert "split it" in text
    assert "ClipOrPad" not in text


@pytest.mark.parametrize("model", [nn.Embedding(4, 4), nn.Linear(4, 5, bias=False)])
def test_rows_of_a_table_or_of_classes_may_still_be_clipped(model):
    text = _refused(nn.ModuleDict({"it": model}), {"it.weight": torch.ones(12, 4)})
    assert "ClipOrPad" in text


def test_a_dtype_that_does_not_fit_is_no_matter_of_rows():
    text = _refused(One(4), {"scale": torch.ones(4, dtype=torch.int64)})
    assert "on_mismatch='keep'" in text
    assert "ClipOrPad" not in text


def test_a_scope_may_have_a_slash_of_its_own():
    model = nn.ModuleDict({"a/b": nn.Linear(4, 4, bias=False)})
    settings = tws.WarmStartSettings({"x.weight": torch.ones(4, 4)}, ".*", None, {"a/b.": "x."})
    tws.warm_start(model, settings)
    assert model["a/b"].weight.eq(1).all()
    text = _refused(model, {"x.weight": torch.ones(4, 4)}, {"a/c.": "x."})
    assert "Did you mean 'a.b.'?" in text


def test_a_kernel_that_lies_the_other_way_may_be_transposed():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    state = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    other = {
        name: tensor.clone() if tensor.ndim == 1 else tensor.T.contiguous()
        for name, tensor in state.items()
    }
    with pytest.raises(tws.PlanError) as raised:
        tws.warm_start(model, other)
    assert str(raised.value).count("var_name_to_layout={name: 'transpose'}") == 1

    layouts = {"0.weight": "transpose", "1.weight": "transpose"}
    tws.warm_start(model, tws.WarmStartSettings(other, var_name_to_layout=layouts))
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("model", "shape"),
    [(nn.Linear(4, 6, bias=False), (4, 5)), (nn.Embedding(4, 6), (6, 4))],
)
def test_no_other_shape_and_no_table_is_said_to_lie_the_other_way(model, shape):
    with pytest.raises(tws.PlanError) as raised:
        tws.warm_start(model, {"weight": torch.ones(shape)})
    assert "'transpose'" not in str(raised.value)


@pytest.mark.parametrize("buckets", [None, 0, 2], ids=["unsaid", "none", "two"])
def test_vocabularies_that_are_swapped_are_said_to_be(buckets):
    yesterday, today = ["a", "b", "c", "d", "e"], ["c", "x", "a"]
    more = buckets or 0
    options = {} if buckets is None else {"old_num_oov_buckets": buckets}
    swapped = tws.VocabInfo(yesterday, -1, more, today, **options)
    table = torch.zeros(len(yesterday) + more, 2)
    model = nn.ModuleDict({"e": nn.Embedding(len(today) + more, 2)})
    settings = tws.WarmStartSettings({"e.weight": table}, ".*", {"e.weight": swapped})
    with pytest.raises(tws.PlanError, match="are new_vocab and old_vocab swapped"):
        tws.plan_warm_start(model, settings)


def test_a_model_of_the_wrong_height_is_not_said_to_have_swapped_vocabularies():
    info = tws.VocabInfo(["c", "x", "a"], old_vocab=["a", "b", "c", "d"])
    model = nn.ModuleDict({"e": nn.Embedding(4, 2)})
    settings = tws.WarmStartSettings({"e.weight": torch.zeros(4, 2)}, ".*", {"e.weight": info})
    with pytest.raises(tws.PlanError, match="if they stand in front") as error:
        tws.plan_warm_start(model, settings)
    assert "swapped" not in str(error.value)


def test_a_feature_that_is_hardly_found_is_asked_about():
    info = tws.VocabInfo(["c", "x"], old_vocab=["a", "c"], min_found=0.9)
    features = tws.SegmentInfo({"city": info}, {"city": 2})
    settings = tws.WarmStartSettings({"weight": torch.zeros(1, 2)}, ".*", {"weight": features})
    with pytest.raises(tws.PlanError, match="asks for 90.0%. Is its old_vocab the right one"):
        tws.plan_warm_start(nn.Linear(2, 1, bias=False), settings)
