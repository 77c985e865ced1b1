"""A model's variables: names without wrappers, tied tensors once, buffers by persistence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_warmstart.model.patterns import matches
from torch_warmstart.model.variables import VariablesByName, model_variables
from torch_warmstart.planning.selection import select
from torch_warmstart.settings.settings import WarmStartSettings


def _compile(model):
    return torch.compile(model, backend="eager")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.embedding.weight.requires_grad_(False)


def _names(variables):
    return [variable.name for variable in variables]


def test_parameters_come_first_then_persistent_buffers():
    names = _names(model_variables(Tied()))
    assert names == [
        "embedding.weight",
        "norm.weight",
        "norm.bias",
        "step",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]


def test_a_tied_parameter_is_one_variable_with_all_its_names_and_stays_a_parameter_when_frozen():
    tied = model_variables(Tied())[0]
    assert tied.names == ("embedding.weight", "head.weight")
    assert tied.trainable
    assert [type(owner.module) for owner in tied.owners] == [nn.Embedding, nn.Linear]


def test_names_equal_torchs_own_for_a_model_without_wrappers():
    model = nn.TransformerDecoderLayer(8, 2, 8)
    own = [name for name, _ in model.named_parameters()]
    assert [v.name for v in model_variables(model) if v.trainable] == own


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        _compile,
        lambda model: _compile(nn.DataParallel(model)),
        lambda model: nn.DataParallel(_compile(model)),
    ],
)
def test_wrappers_are_no_part_of_a_name_but_of_the_state_dict_name(wrap):
    model = nn.Sequential(nn.Linear(2, 2))
    wrapped = wrap(model)
    variables = model_variables(wrapped)
    assert _names(variables) == ["0.weight", "0.bias"]
    assert {v.owners[0].state_dict_name for v in variables} == set(wrapped.state_dict())


def test_a_submodule_that_a_user_called_module_keeps_its_name():
    model = nn.Module()
    model.module = nn.Linear(2, 2)
    assert _names(model_variables(model)) == ["module.weight", "module.bias"]


def test_a_name_may_be_written_with_slashes_and_an_output_number():
    variables = model_variables(Tied())
    for name in ("head.weight", "head/weight", "head/weight:0"):
        variable, owner = VariablesByName(variables).find(name)
        assert (variable.name, owner.name) == ("embedding.weight", "head.weight")
    assert VariablesByName(variables).find("cache") is None


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        (".*", "a.b", True),
        ("v1", "v10", True),  # a match from the start, as in TensorFlow
        ("v1$", "v1", True),  # in TensorFlow it never matches: its names end in ':0'
        ("v1$", "v10", False),
        ("weight$", "a.weight", False),  # match, not search
        (".*weight$", "a.weight", True),
        ("v2[^/]", "v2", True),  # TensorFlow's documented example
        ("v2[^/]", "v2/Momentum", False),
        ("v1:0$", "v1", True),
        ("v1:0$", "v10", False),
        ("a/b", "a.b", True),
        ("a/.*", "ab.c", False),
        (r"^(?!.*Adam$)", "x.Adam", False),
        (r"^(?!.*Adam$)", "x.Adam_1", True),
        (r"[^.]+$", "a.b", False),
    ],
)
def test_patterns(pattern, name, expected):
    assert matches(pattern, name) is expected


def _selected(model, vars_to_warm_start, **settings):
    chosen, problems = select(
        WarmStartSettings("x", vars_to_warm_start, **settings), model_variables(model)
    )
    return _names(chosen), [str(problem) for problem in problems]


def test_a_str_selects_parameters_and_a_list_buffers_too():
    model = Tied()
    assert _selected(model, "norm") == (["norm.weight", "norm.bias"], [])
    assert _selected(model, ["norm"])[0] == [
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]


def test_a_tied_variable_is_selected_by_any_of_its_names_and_once():
    assert _selected(Tied(), ["head", "embedding", "head"])[0] == ["embedding.weight"]


def test_a_list_of_tensors_selects_those_objects():
    model = Tied()
    chosen, problems = _selected(model, [model.norm.running_mean, model.norm.bias])
    assert chosen == ["norm.bias", "norm.running_mean"]
    assert problems == []


def test_a_tensor_that_is_not_the_models_is_a_problem():
    model = Tied()
    _, problems = _selected(model, [model.norm.bias, model.norm.bias.detach(), model.cache])
    assert problems == [
        "vars_to_warm_start: tensor number 1 of the list, of shape [3], is no parameter or "
        "persistent buffer of the model (a copy or a view is another tensor).",
        "vars_to_warm_start: tensor number 2 of the list, of shape [2], is no parameter or "
        "persistent buffer of the model (a copy or a view is another tensor).",
    ]


def test_a_pattern_that_matches_nothing_shows_the_nearest_names():
    _, problems = _selected(Tied(), "embeding.*")
    assert problems == [
        "vars_to_warm_start: 'embeding.*' matches none of the model's 3 trainable variables (a "
        "pattern is matched from the start of a name). Nearest: 'embedding.weight'."
    ]


def test_a_str_pattern_that_only_buffers_match_says_to_write_a_list():
    _, problems = _selected(Tied(), ".*running_mean")
    assert problems == [
        "vars_to_warm_start: '.*running_mean' matches none of the model's 3 trainable variables (a "
        "pattern is matched from the start of a name). It matches the buffer 'norm.running_mean': "
        "write a list, ['.*running_mean'], to select among global variables."
    ]


def test_one_pattern_of_a_list_that_matches_nothing_is_a_problem():
    chosen, problems = _selected(Tied(), ["norm", "nrom"])
    assert len(chosen) == 5
    assert len(problems) == 1


def test_none_without_a_vocab_info_is_a_problem():
    _, problems = _selected(Tied(), None)
    assert problems == [
        "vars_to_warm_start=None takes only variables with a VocabInfo; there is none."
    ]
