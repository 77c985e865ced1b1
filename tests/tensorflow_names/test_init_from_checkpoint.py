"""init_from_checkpoint: its map of names and scopes, against TensorFlow's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bundle_writer import write_bundle
from remapping_helpers import entry, says, seeded
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, SettingsError

# -- init_from_checkpoint --------------------------------------------------------------------------


def numbers(seed, *shape):
    return torch.randn(shape, generator=seeded(seed))


VALUES = {
    "old/dense/kernel": numbers(1, 2, 3),
    "old/dense/bias": numbers(2, 3),
    "old/norm/gamma": numbers(3, 3),
    "old/norm/beta": numbers(4, 3),
    "old/norm/moving_mean": numbers(5, 3),
    "old/norm/moving_variance": numbers(6, 3),
    "old_1/dense/kernel": numbers(7, 2, 3),
    "old_1/dense/bias": numbers(8, 3),
    "words/embeddings": numbers(9, 4, 2),
    "plain": numbers(10, 2, 3),
}
STATE = {
    "dense.weight": VALUES["old/dense/kernel"].t(),
    "dense.bias": VALUES["old/dense/bias"],
    "norm.weight": VALUES["old/norm/gamma"],
    "norm.bias": VALUES["old/norm/beta"],
    "norm.running_mean": VALUES["old/norm/moving_mean"],
    "norm.running_var": VALUES["old/norm/moving_variance"],
}


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.new = Tower()
        self.new_1 = Tower()
        self.words = nn.Embedding(4, 2)
        self.table = nn.Parameter(torch.zeros(2, 3))


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A TensorFlow checkpoint called model.ckpt in the current directory."""
    monkeypatch.chdir(tmp_path)
    write_bundle("model.ckpt", [entry(name, value) for name, value in VALUES.items()])
    return "model.ckpt"


def assert_tower(tower, **others):
    expected = {**STATE, **others}
    for name, value in expected.items():
        assert torch.equal(tower.state_dict()[name], value), name


@pytest.mark.parametrize(
    "assignment_map",
    [
        {"old/": "new/"},
        {"old/": "new."},
        [("old/", "new/")],
        (("old/dense/", "new/dense/"), ["old/norm/", "new/norm/"]),
        {"old/": "new/", "old/dense/bias": "new/dense/bias"},
    ],
)
def test_a_scope_takes_all_below_it_and_nothing_beside_it(checkpoint, assignment_map):
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = dict(model.named_parameters())
    report = tws.init_from_checkpoint(model, checkpoint, assignment_map)
    assert_tower(model.new)
    for name, value in model.state_dict().items():
        if name.removeprefix("new.") not in STATE or not name.startswith("new."):
            assert torch.equal(value, before[name]), name
    assert {v.name for v in report.variables if v.state != "kept"} == {f"new.{n}" for n in STATE}
    assert dict(model.named_parameters()).keys() == kept.keys()
    assert all(model.get_parameter(name) is parameter for name, parameter in kept.items())


def test_single_variables_by_name_or_as_themselves(checkpoint):
    model = Net()
    assignment_map = {
        "old/dense/kernel": "new/dense/weight",
        "old_1/dense/kernel:0": "new_1.dense.weight",
        "old/norm/moving_mean": model.new.norm.running_mean,
        "words/embeddings": model.words.weight,
        "plain": "table",
    }
    report = tws.init_from_checkpoint(model, checkpoint, assignment_map)
    assert torch.equal(model.new.dense.weight, VALUES["old/dense/kernel"].t())
    assert torch.equal(model.new_1.dense.weight, VALUES["old_1/dense/kernel"].t())
    assert torch.equal(model.new.norm.running_mean, VALUES["old/norm/moving_mean"])
    assert torch.equal(model.words.weight, VALUES["words/embeddings"])
    assert torch.equal(model.table, VALUES["plain"])
    assert sum(v.state != "kept" for v in report.variables) == 5


def test_one_tensor_to_two_variables(checkpoint):
    model = Net()
    pairs = [("old/dense/bias", "new.dense.bias"), ("old/dense/bias", "new_1.dense.bias")]
    tws.init_from_checkpoint(model, checkpoint, pairs)
    assert torch.equal(model.new.dense.bias, VALUES["old/dense/bias"])
    assert torch.equal(model.new_1.dense.bias, VALUES["old/dense/bias"])


def test_one_scope_to_two(checkpoint):
    model = Net()
    tws.init_from_checkpoint(model, checkpoint, [("old/", "new/"), ("old/", "new_1/")])
    assert_tower(model.new)
    assert_tower(model.new_1)


def test_the_root_is_a_scope_on_either_side(checkpoint):
    tower = Tower()
    tws.init_from_checkpoint(tower, checkpoint, {"old/": "/"})
    assert_tower(tower)
    outer = nn.ModuleDict({"outer": nn.ModuleDict({"words": nn.Embedding(4, 2)})})
    tws.init_from_checkpoint(outer, checkpoint, {"/": "outer/"})
    assert torch.equal(outer.outer.words.weight, VALUES["words/embeddings"])
    tws.init_from_checkpoint(inner := nn.ModuleDict({"old": Tower()}), checkpoint, {"/": "/"})
    assert_tower(inner.old)


def test_a_scope_may_be_a_layer(checkpoint):
    layer = nn.Linear(2, 3)
    tws.init_from_checkpoint(layer, checkpoint, {"old/dense/": "/"})
    assert torch.equal(layer.weight, STATE["dense.weight"])


def test_layers_of_several_tensors_are_in_a_scope_like_others(tmp_path):
    shapes = {
        "lstm/kernel": (2, 12),
        "lstm/recurrent_kernel": (3, 12),
        "lstm/bias": (12,),
        "attention/attention_output/kernel": (2, 2, 4),
        "attention/attention_output/bias": (4,),
        "sep/depthwise_kernel": (3, 3, 2, 1),
        "sep/pointwise_kernel": (1, 1, 2, 4),
    }
    for projection in ("query", "key", "value"):
        shapes[f"attention/{projection}/kernel"] = (4, 2, 2)
        shapes[f"attention/{projection}/bias"] = (2, 2)
    entries = [
        entry(f"{scope}{name}", numbers(seed, *shape))
        for scope in ("", "old/")
        for seed, (name, shape) in enumerate(shapes.items())
    ]
    write_bundle(tmp_path / "c", entries)

    def layers():
        depthwise = nn.Conv2d(2, 2, 3, groups=2, bias=False)
        separable = nn.Sequential(depthwise, nn.Conv2d(2, 4, 1, bias=False))
        attention = nn.MultiheadAttention(4, 2)
        return nn.ModuleDict({"lstm": nn.LSTM(2, 3), "attention": attention, "sep": separable})

    expected, model = layers(), nn.ModuleDict({"new": layers()})
    tws.warm_start(expected, tmp_path / "c")
    report = tws.init_from_checkpoint(model, tmp_path / "c", {"old/": "new/"})
    for name, value in expected.state_dict().items():
        assert torch.equal(model.new.state_dict()[name], value), name
    assert all(key.startswith("old/") for v in report.variables for key in v.keys)


def test_the_more_specific_entry_counts(checkpoint):
    model = nn.ModuleDict({"new": Tower()})
    assignment_map = {
        "old_1/dense/": "new/dense/",
        "old/": "new/",
        "old/norm/beta": "new/dense/bias",
    }
    tws.init_from_checkpoint(model, checkpoint, assignment_map)
    weight = VALUES["old_1/dense/kernel"].t()
    assert_tower(model.new, **{"dense.weight": weight, "dense.bias": VALUES["old/norm/beta"]})


def test_what_a_more_specific_entry_takes_need_not_be_in_the_scope_around_it(checkpoint):
    model = nn.ModuleDict({"dense": nn.Linear(2, 3), "extra": nn.Linear(2, 3)})
    tws.init_from_checkpoint(model, checkpoint, {"old/": "/", "old_1/dense/": "extra/"})
    assert torch.equal(model.extra.bias, VALUES["old_1/dense/bias"])


@pytest.mark.parametrize(
    "inner",
    [
        {"old/dense/": "dense/"},
        {"old/dense/kernel": "dense.weight", "old/dense/bias": "dense.bias"},
    ],
)
def test_a_scope_of_which_nothing_is_left_need_not_be_there(checkpoint, inner):
    model = nn.ModuleDict({"dense": nn.Linear(2, 3)})
    tws.init_from_checkpoint(model, checkpoint, {"none/": "/", **inner})
    assert torch.equal(model.dense.weight, STATE["dense.weight"])
    assert torch.equal(model.dense.bias, STATE["dense.bias"])


def test_the_same_entry_may_come_twice(checkpoint):
    model = nn.ModuleDict({"words": nn.Embedding(4, 2), "head": nn.Linear(2, 4, bias=False)})
    model.head.weight = model.words.weight
    assignment_map = [
        ("words/embeddings", "words.weight"),
        ("words/embeddings:0", "head/weight"),
        ("words/embeddings", model.words.weight),
        ("words/", "/"),
        ("words/", "."),
    ]
    tws.init_from_checkpoint(model, checkpoint, assignment_map)
    assert torch.equal(model.words.weight, VALUES["words/embeddings"])


def test_tied_variables_need_only_one_of_their_names(checkpoint):
    model = nn.ModuleDict({"words": nn.Embedding(4, 2), "head": nn.Linear(2, 4, bias=False)})
    model.head.weight = model.words.weight
    for assignment_map in ({"/": "/"}, {"words/": "head/"}, {"words/embeddings": "words/weight"}):
        nn.init.zeros_(model.words.weight)
        if assignment_map == {"words/": "head/"}:
            with pytest.raises(
                PlanError, match="has nothing of what it asks for, such as 'words/w"
            ):
                tws.init_from_checkpoint(model, checkpoint, assignment_map)
            continue
        tws.init_from_checkpoint(model, checkpoint, assignment_map)
        assert torch.equal(model.head.weight, VALUES["words/embeddings"])


def test_wrappers_are_no_part_of_names(checkpoint):
    model = nn.DataParallel(Tower())
    tws.init_from_checkpoint(model, checkpoint, {"old/": "/"})
    assert_tower(model.module)


@pytest.mark.parametrize(
    ("scope", "zero"), [("block.0/", ""), ("block_0/", ":0"), ("block.0/", ":0")]
)
def test_names_in_a_tensorflow_checkpoint_may_have_dots_or_zeros(tmp_path, scope, zero):
    kernel, bias = numbers(1, 2, 3), numbers(2, 3)
    entries = [entry(f"{scope}dense/kernel", kernel), entry(f"{scope}dense/bias{zero}", bias)]
    write_bundle(tmp_path / "c", entries)
    model = nn.ModuleDict({"dense": nn.Linear(2, 3)})
    tws.init_from_checkpoint(model, tmp_path / "c", {scope: "/"})
    assert torch.equal(model.dense.weight, kernel.t())
    assert torch.equal(model.dense.bias, bias)


@pytest.mark.parametrize("begin", ["old/", "old."])
def test_a_torch_checkpoint_has_torchs_names_and_counts_batches(begin):
    old = nn.ModuleDict({"old": Tower()})
    for tensor in old.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) * 9)
    model = Net()
    tws.init_from_checkpoint(model, old.state_dict(), {begin: "new_1/"})
    for name, value in old.old.state_dict().items():
        assert torch.equal(model.new_1.state_dict()[name], value), name


def test_an_object_based_checkpoint_is_known_by_its_full_names_and_paths(request):
    folder = request.path.parents[1] / "fixtures" / "object_based"
    w = tws.load_variable(folder, "nested/inner/w/.ATTRIBUTES/VARIABLE_VALUE")
    for assignment_map in (
        {"scope/": "/"},
        {"nested/inner/": "/"},
        {"scope/w": "w"},
        {"nested/inner/w": "w"},
    ):
        model = nn.ParameterDict({"w": nn.Parameter(torch.zeros(2, 2))})
        tws.init_from_checkpoint(model, folder, assignment_map)
        assert torch.equal(model.w, w)


def test_an_ambiguous_name_is_an_error(request):
    folder = request.path.parents[1] / "fixtures" / "object_based"
    model = nn.ParameterDict({"fruit": nn.Parameter(torch.zeros(2))})
    with pytest.raises(
        PlanError,
        match=r"fruit: 'fruit' is the name of several tensors; name one by its key: "
        r"'first/.ATTRIBUTES/VARIABLE_VALUE' or 'second/.ATTRIBUTES/VARIABLE_VALUE'.",
    ):
        tws.init_from_checkpoint(model, folder, {"/": "/"})


def test_an_open_checkpoint_stays_open_afterwards(checkpoint):
    with tws.load_checkpoint(checkpoint) as opened:
        tws.init_from_checkpoint(Net(), opened, {"old/": "new/"})
        assert torch.equal(opened.get_tensor("plain"), VALUES["plain"])


def test_all_problems_of_a_map_come_in_one_error(checkpoint):
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assignment_map = [
        ("old/dense/kernl", "new/dense/weight"),
        ("old_1/", "new_1/"),
        ("old/", "nwe/"),
        ("plain", "tabel"),
        ("plain", torch.zeros(2, 3)),
        ("old/norms/", "new/norm/"),
        ("words/", "words/"),
        ("old/", "words/"),
        ("old/dense/bias", "new/dense/bias"),
        ("old_1/dense/bias", "new.dense.bias"),
    ]
    with says(
        """\
The assignment_map has 11 problems; nothing was changed:
  1. assignment_map: {'plain': <tensor of shape [2, 3]>}: the model has no such parameter or \
persistent buffer (a copy or a view is another tensor).
  2. assignment_map: 'words/' is assigned different scopes: {'words/': 'words/'} and \
{'old/': 'words/'}.
  3. assignment_map: 'new.dense.bias' is assigned different tensors: \
{'old/dense/bias': 'new/dense/bias'} and {'old_1/dense/bias': 'new.dense.bias'}.
  4. var_name_to_prev_var_name (assignment_map): the model has no variable 'tabel'. Did you mean \
'table'?
  5. var_name_to_prev_var_name (assignment_map): {'nwe/': 'old/'}: the model has no variables in \
'nwe/'. Did you mean 'new.' or 'new_1.' or 'new.dense.'?
  6. var_name_to_prev_var_name (assignment_map): {'new/norm/': 'old/norms/'}: model.ckpt has \
nothing of what it asks for, such as 'old/norms/weight' for 'new.norm.weight'. Did you mean \
'old/norm/beta' or 'old/norm/gamma' or 'old/norm/moving_mean'?
  7. new.dense.weight: var_name_to_prev_var_name (assignment_map) asks for 'old/dense/kernl', \
which model.ckpt does not have. Did you mean 'old/dense/kernel' or 'old_1/dense/kernel' or \
'old/dense/bias'?
  8. new_1.norm.weight: var_name_to_prev_var_name (assignment_map): {'new_1/': 'old_1/'} asks for \
'old_1/norm/weight', which model.ckpt does not have. Did you mean 'old/norm/beta' or \
'old/norm/gamma' or 'old/norm/moving_mean'?
  9. new_1.norm.bias: var_name_to_prev_var_name (assignment_map): {'new_1/': 'old_1/'} asks for \
'old_1/norm/bias', which model.ckpt does not have. Did you mean 'old/norm/beta' or \
'old_1/dense/bias' or 'old/norm/gamma'?
  10. new_1.norm.running_mean: var_name_to_prev_var_name (assignment_map): {'new_1/': 'old_1/'} \
asks for 'old_1/norm/running_mean', which model.ckpt does not have. Did you mean \
'old/norm/moving_mean' or 'old/norm/moving_variance' or 'old/norm/beta'?
  11. new_1.norm.running_var: var_name_to_prev_var_name (assignment_map): {'new_1/': 'old_1/'} \
asks for 'old_1/norm/running_var', which model.ckpt does not have. Did you mean \
'old/norm/moving_variance' or 'old/norm/moving_mean' or 'old/norm/gamma'?""",
        PlanError,
    ):
        tws.init_from_checkpoint(model, checkpoint, assignment_map)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (
            "tabel",
            "var_name_to_prev_var_name (assignment_map): the model has no variable 'tabel'. Did "
            "you mean 'table'?",
        ),
        (
            torch.zeros(1),
            "assignment_map: {'plain': <tensor of shape [1]>}: the model has no such parameter or "
            "persistent buffer (a copy or a view is another tensor).",
        ),
    ],
)
def test_a_map_for_nothing_in_the_model_is_an_error(checkpoint, target, problem):
    with says(f"The assignment_map has 1 problem; nothing was changed:\n  1. {problem}", PlanError):
        tws.init_from_checkpoint(Net(), checkpoint, {"plain": target})


@pytest.mark.parametrize(
    ("assignment_map", "message"),
    [
        (
            {"old": "new/"},
            "assignment_map: in {'old': 'new/'} the second is a scope and the first is not. A "
            "scope of the checkpoint is assigned to one of the model, both with a slash at the end "
            "({'old/': 'new/'}; '/' is the root), and a tensor to a variable.",
        ),
        (
            {"old/": "new"},
            "assignment_map: in {'old/': 'new'} the first is a scope and the second is not. A "
            "scope of the checkpoint is assigned to one of the model, both with a slash at the end "
            "({'old/': 'new/'}; '/' is the root), and a tensor to a variable.",
        ),
        (
            {"old/": torch.zeros(1)},
            "assignment_map: in {'old/': <tensor of shape [1]>} the first is a scope and the "
            "second is not. A scope of the checkpoint is assigned to one of the model, both with a "
            "slash at the end ({'old/': 'new/'}; '/' is the root), and a tensor to a variable.",
        ),
        (
            {"old": ""},
            "assignment_map: {'old': ''} is no entry. One goes from a name in the checkpoint to a "
            "variable's name, a parameter or a buffer.",
        ),
        (
            {"old": ["a", "b"]},
            "assignment_map: {'old': ['a', 'b']} is no entry. One goes from a name in the "
            "checkpoint to a variable's name, a parameter or a buffer.",
        ),
        ({}, "assignment_map is empty, which assigns nothing."),
        (
            "old/",
            "assignment_map is a mapping or a list of pairs, from names in the checkpoint to those "
            "of the model; not 'old/'.",
        ),
        (
            [("a", "b", "c")],
            "assignment_map is a mapping or a list of pairs, from names in the checkpoint to those "
            "of the model; not [('a', 'b', 'c')].",
        ),
    ],
)
def test_malformed_maps_are_errors(checkpoint, assignment_map, message):
    with says(message):
        tws.init_from_checkpoint(Net(), checkpoint, assignment_map)


def test_a_shape_that_does_not_fit_is_an_error_and_changes_nothing(checkpoint):
    model = nn.ModuleDict({"dense": nn.Linear(2, 3), "norm": nn.BatchNorm1d(5)})
    before = model.dense.weight.detach().clone()
    with pytest.raises(PlanError, match=r"norm.weight has shape \[5\], but 'old/norm/gamma' in"):
        tws.init_from_checkpoint(model, checkpoint, {"old/": "/"})
    assert torch.equal(model.dense.weight, before)


def test_a_damaged_tensor_is_an_error_and_changes_nothing(tmp_path):
    write_bundle(tmp_path / "c", [entry("a", torch.ones(2)), entry("b", torch.ones(2), crc=1)])
    model = nn.ParameterDict({name: nn.Parameter(torch.zeros(2)) for name in "ab"})
    with pytest.raises(tws.CorruptCheckpointError):
        tws.init_from_checkpoint(model, tmp_path / "c", {"/": "/"})
    assert not model.a.any()
    tws.init_from_checkpoint(model, tmp_path / "c", {"/": "/"}, verify=False)
    assert model.b.all()


def test_the_model_must_be_a_module(checkpoint):
    with says("The model must be a torch.nn.Module, not a dict."):
        tws.init_from_checkpoint({}, checkpoint, {"/": "/"})


@pytest.mark.parametrize("source", ["none.ckpt", "model.ckpt/none"])
def test_a_missing_checkpoint_is_an_error(checkpoint, source):
    with pytest.raises(tws.CheckpointNotFoundError):
        tws.init_from_checkpoint(Net(), source, {"/": "/"})


# TensorFlow's variables are made with the shapes of the torch model's, which has no layers here, so
# that the names and layouts are the same on both sides.
OLD = {
    "a/x": numbers(20, 2),
    "a/b/x": numbers(21, 2),
    "a/b/y": numbers(22, 2),
    "a_1/x": numbers(23, 2),
    "x": numbers(24, 2),
    "y": numbers(25, 2),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("names", "assignment_map"),
    [
        (["n/x", "n/b/x", "n/b/y", "n_1/x"], {"a/": "n/"}),
        (["n/x", "n/b/x", "n_1/x"], {"a/": "n/", "a_1/": "n_1/"}),
        (["n/x", "n/y", "x"], {"a/b/": "n/"}),
        (["a/x", "a/b/x", "x", "y"], {"/": "/"}),
        (["a_1/x", "x"], {"/": "/"}),
        (["n/m/x", "n/m/y", "n/x"], {"/": "n/m/"}),
        (["n/m/x", "n/m/b/y"], {"a/": "n/m/"}),
        (["x", "b/x", "b/y"], {"a/": "/"}),
        (["a/x", "a/b/x"], {"/": "/", "a_1/": "a/b/", "y": "a/x"}),
        (["n/x", "n/y"], [("a/b/x", "n/x"), ("a/b/x", "n/y")]),
        (["n/x", "n/z"], {"a/b/": "n/"}),
        (["n/x"], {"z/": "n/"}),
        (["n/x"], {"z": "n/x"}),
        (["n/x"], {"a": "n/"}),
        (["n/x"], {"x": "n/z"}),
    ],
)
def test_maps_of_names_and_scopes_as_tensorflow_does_them(tmp_path, names, assignment_map):
    import tf_oracle

    prefix = tf_oracle.save(tmp_path, {name: value.numpy() for name, value in OLD.items()})
    model = _nested({name: torch.zeros(2) for name in names})
    try:
        expected = _by_tensorflow(tf_oracle.tf1, names, prefix, assignment_map)
    except ValueError:
        with pytest.raises(SettingsError):
            tws.init_from_checkpoint(model, prefix, assignment_map)
        return
    tws.init_from_checkpoint(model, prefix, assignment_map)
    for name in names:
        np.testing.assert_array_equal(
            model.get_parameter(name.replace("/", ".")).detach().numpy(), expected[name], name
        )


def _by_tensorflow(tf1, names, prefix, assignment_map):
    with tf1.Graph().as_default(), tf1.Session() as session:
        zeros = tf1.zeros_initializer()
        variables = {name: tf1.get_variable(name, [2], initializer=zeros) for name in names}
        tf1.train.init_from_checkpoint(prefix, assignment_map)
        session.run(tf1.global_variables_initializer())
        return session.run(variables)


def _nested(values):
    """A model of plain modules, with a parameter for each name."""
    root = nn.Module()
    for name, value in values.items():
        *path, leaf = name.split("/")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, nn.Parameter(value))
    return root
