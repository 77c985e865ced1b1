"""What names within a layer say, and how they are written."""

from __future__ import annotations

import pytest
from torch import nn

from torch_warmstart.layouts.leaf import in_parent, numbered, read_leaf
from torch_warmstart.layouts.tensorflow import tf_forms


def test_a_plain_name_is_in_the_layer_itself():
    leaf = read_leaf("query/kernel")
    assert (leaf.child, leaf.name, leaf.literal) == (None, "query/kernel", "query/kernel")
    assert not leaf.is_pattern
    assert leaf.number is None
    assert leaf.layer_in("a.b") == "a.b"


def test_a_star_is_anything_without_a_slash():
    leaf = read_leaf("lstm_cell*/kernel")
    assert leaf.is_pattern
    assert leaf.literal == "lstm_cell"
    assert leaf.expression.fullmatch("lstm_cell_3/kernel")
    assert not leaf.expression.fullmatch("lstm_cell/x/kernel")


def test_a_number_is_one_of_several():
    leaf = read_leaf(f"stacked*/{numbered('cell', 1, 3)}/kernel")
    assert (leaf.number, leaf.count, leaf.literal) == (1, 3, "stacked")
    assert leaf.expression.fullmatch("stacked_rnn/cell_7/kernel")[1] == "7"
    assert leaf.expression.fullmatch("stacked/cell/kernel")[1] is None


def test_a_name_in_the_layer_around_leads_there_if_that_calls_the_layer_so():
    leaf = read_leaf(in_parent("pointwise", "bias"))
    assert (leaf.child, leaf.name) == ("pointwise", "bias")
    assert leaf.layer_in("block.pointwise") == leaf.layer_in("block/pointwise") == "block"
    assert leaf.layer_in("pointwise") == ""
    assert leaf.layer_in("block.depthwise") is None


@pytest.mark.parametrize(
    ("written", "key", "layer"),
    [
        ("kernel", "a/b/kernel", "a/b"),
        ("kernel", "kernel", ""),
        ("kernel", "a/my_kernel", None),
        ("query/kernel", "a/query/kernel", "a"),
        ("pointwise/../bias", "a/bias", "a/pointwise"),
        ("pointwise/../bias", "bias", "pointwise"),
    ],
)
def test_a_key_tells_the_layer_that_it_is_a_tensor_of(written, key, layer):
    assert read_leaf(written).layer_of(key) == layer


@pytest.mark.parametrize(
    ("module", "leaf"),
    [
        (nn.Conv2d(4, 4, 1, groups=4), "weight"),
        (nn.Conv2d(4, 8, 1), "bias"),
        (nn.MultiheadAttention(8, 2).out_proj, "weight"),
        (nn.Linear(2, 3), "weight"),
    ],
)
def test_the_names_of_forms_lead_there_and_back(module, leaf):
    names = [name for form in tf_forms(module, leaf) for names in form.names for name in names]
    for read in map(read_leaf, filter(None, names)):
        path = f"net/{read.child}" if read.child else "net/den"
        assert read.layer_of(f"{read.layer_in(path)}/{read.name}") == path
