"""What docs/getting_started.md says of always, never, only, each and all: a test for a claim."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws

TABLE = {"t.weight": torch.arange(6.0).reshape(3, 2)}
OLD, NEW = ["a", "b", "c"], ["b", "x", "c"]


def table(rows: int = 3, columns: int = 2) -> nn.Module:
    return nn.ModuleDict({"t": nn.Embedding(rows, columns)})


def with_vocabulary(new, old, oov: int = 0, **more) -> tws.WarmStartSettings:
    info = tws.VocabInfo(new, -1, oov, old, **more)
    return tws.WarmStartSettings(TABLE, var_name_to_vocab_info={"t.weight": info})


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("lost", torch.zeros(2), persistent=False)


# -- plans and reports -----------------------------------------------------------------------------


def test_a_plan_does_nothing_to_the_model() -> None:
    model = table()
    before = state_of(model)
    str(tws.plan_warm_start(model, with_vocabulary(NEW, OLD)))
    assert unchanged(model, before)


def test_warm_start_does_both_in_one_call() -> None:
    one, two = table(), table()
    tws.warm_start(one, with_vocabulary(NEW, OLD))
    tws.apply_plan(tws.plan_warm_start(two, with_vocabulary(NEW, OLD)))
    assert torch.equal(one["t"].weight, two["t"].weight)


def test_there_is_one_line_for_each_parameter_and_persistent_buffer_that_is_selected() -> None:
    model = Net()
    settings = tws.WarmStartSettings(model.state_dict(), [".*"])
    plan = tws.plan_warm_start(model, settings)
    report = tws.apply_plan(plan)
    names = set(model.state_dict())
    assert {account.name for account in report.variables} == names
    for text in (str(plan), str(report)):
        lines = [line.split()[0] for line in text.splitlines() if line.split()]
        assert all(lines.count(name) == 1 for name in names)
        assert "lost" not in lines


def test_a_report_unpacks_into_two_and_its_dict_is_for_json() -> None:
    report = tws.warm_start(table(), with_vocabulary(NEW, OLD))
    missing, unexpected = report
    assert (len(missing), len(unexpected)) == (0, 0)
    assert json.loads(json.dumps(report.to_dict()))


# -- selection -------------------------------------------------------------------------------------


def selected(model: nn.Module, what, **more) -> set[str]:
    source = {name: value + 1 for name, value in model.state_dict().items()}
    report = tws.warm_start(model, tws.WarmStartSettings(source, what, **more))
    return {account.name for account in report.variables if account.state != "kept"}


def test_a_str_selects_parameters_only_and_a_list_buffers_too() -> None:
    parameters = {"fc.weight", "fc.bias", "norm.weight", "norm.bias"}
    assert selected(Net(), ".*") == parameters
    assert selected(Net(), [".*"]) == set(Net().state_dict())


def test_a_list_of_tensors_selects_exactly_these() -> None:
    model = Net()
    chosen = [model.fc.bias, model.norm.running_mean]
    assert selected(model, chosen) == {"fc.bias", "norm.running_mean"}


def test_none_selects_only_variables_that_have_a_vocab_info() -> None:
    model = nn.ModuleDict({"t": nn.Embedding(3, 2), "u": nn.Embedding(3, 2)})
    info = {"t.weight": tws.VocabInfo(NEW, 3, 0, OLD)}
    assert selected(model, None, var_name_to_vocab_info=info) == {"t.weight"}


def test_a_frozen_parameter_is_still_a_parameter() -> None:
    model = Net().requires_grad_(False)
    assert "fc.weight" in selected(model, ".*")
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_each_name_of_a_tied_parameter_will_do() -> None:
    for name in ("a", "b"):
        model = nn.ModuleDict({"a": nn.Linear(2, 2, False), "b": nn.Linear(2, 2, False)})
        model["b"].weight = model["a"].weight
        tws.warm_start(model, {f"{name}.weight": torch.full((2, 2), 7.0)})
        assert model["a"].weight.tolist() == [[7.0, 7.0]] * 2


def test_each_selected_variable_must_be_there_and_what_else_is_there_does_not_matter() -> None:
    model = table()
    tws.warm_start(model, {**TABLE, "else": torch.ones(5)})
    with pytest.raises(tws.PlanError, match="u.weight is not in the checkpoint"):
        tws.warm_start(nn.ModuleDict({"t": model["t"], "u": nn.Embedding(3, 2)}), TABLE)


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("v1", {"v1", "v10"}),
        ("v1$", {"v1"}),
        ("10", set()),
        ("(?!v10)", {"v1", "w/v1"}),
        (".*v1$", {"v1", "w/v1"}),
        ("v1:0", {"v1"}),
    ],
)
def test_a_pattern_must_match_from_the_start_and_need_not_reach_the_end(pattern, taken) -> None:
    model = nn.Module()
    for name in ("v1", "v10", "w/v1"):
        model.register_parameter(name, nn.Parameter(torch.zeros(2)))
    if not taken:
        with pytest.raises(tws.PlanError, match="matches none"):
            selected(model, pattern)
    else:
        assert selected(model, pattern) == taken


# -- names -----------------------------------------------------------------------------------------


def test_of_a_renamed_variable_no_other_key_is_looked_for() -> None:
    rule = {"t.weight": "gone"}
    settings = tws.WarmStartSettings(TABLE, var_name_to_prev_var_name=rule)
    with pytest.raises(tws.PlanError, match="gone"):
        tws.warm_start(table(), settings)


def test_two_tensors_that_answer_to_one_variable_are_an_error_that_names_both() -> None:
    with pytest.raises(tws.PlanError) as caught:
        tws.warm_start(table(), {"t.weight": torch.zeros(3, 2), "t/weight": torch.ones(3, 2)})
    assert "'t.weight'" in str(caught.value)
    assert "'t/weight'" in str(caught.value)


def test_what_wrappers_put_in_front_is_not_part_of_a_name() -> None:
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        model = table()
        tws.warm_start(model, {f"{prefix}t.weight": TABLE["t.weight"]})
        assert torch.equal(model["t"].weight, TABLE["t.weight"])


def test_a_linear_is_transposed_and_a_tensor_of_your_own_is_copied_as_it_is(tmp_path: Path) -> None:
    prefix = write_random_bundle(str(tmp_path / "c"), {"a/kernel": (3, 3), "b": (3, 3)})

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Parameter(torch.zeros(3, 3))

    kernel, own = (torch.as_tensor(tws.load_variable(prefix, key)) for key in ("a/kernel", "b"))
    for layouts, expected in (
        ({}, (kernel.T, own)),
        ({"a.weight": "identity", "b": "transpose"}, (kernel, own.T)),
    ):
        model = Own()
        tws.warm_start(model, tws.WarmStartSettings(prefix, var_name_to_layout=layouts))
        assert torch.equal(model.a.weight, expected[0])
        assert torch.equal(model.b, expected[1])


# -- vocabularies ----------------------------------------------------------------------------------


def test_a_line_ends_at_a_newline_and_all_else_belongs_to_the_entry(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes(b" a \nb\r\n\xff\x0b\xe9")
    model = table()
    new = [b"\xff\x0b\xe9", b"b", b" a "]
    tws.warm_start(model, with_vocabulary(new, str(tmp_path / "old.txt")))
    assert torch.equal(model["t"].weight, TABLE["t.weight"].flip(0))


def test_a_blank_line_is_an_error_and_a_blank_entry_is_one_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes(b"a\n\nb\n")
    with pytest.raises(tws.WarmStartError, match="blank"):
        tws.warm_start(table(), with_vocabulary(NEW, str(tmp_path / "old.txt")))
    model = table()
    tws.warm_start(model, with_vocabulary(["b", "", "a"], ["a", "", "b"]))
    assert torch.equal(model["t"].weight, TABLE["t.weight"].flip(0))


def test_an_entry_twice_in_the_old_vocabulary_is_an_error() -> None:
    with pytest.raises(tws.PlanError, match="twice"):
        tws.warm_start(table(), with_vocabulary(NEW, ["a", "z", "a"]))


def test_an_entry_twice_in_the_new_vocabulary_is_an_error_if_the_old_one_has_it() -> None:
    tws.warm_start(table(), with_vocabulary(["x", "x", "a"], OLD))
    with pytest.raises(tws.PlanError, match="twice"):
        tws.warm_start(table(), with_vocabulary(["a", "a", "x"], OLD))


@pytest.mark.parametrize("rows", [3, 4, 6])
def test_the_new_variable_has_neither_fewer_rows_nor_more(rows: int) -> None:
    with pytest.raises(tws.PlanError, match=f"has size {rows} along axis 0"):
        tws.warm_start(table(rows), with_vocabulary(NEW, OLD, oov=2))
    tws.warm_start(table(5), with_vocabulary(NEW, OLD, oov=2))


def test_the_old_variable_may_have_more_rows_than_its_vocabulary_but_none_is_guessed() -> None:
    model = table()
    report = tws.warm_start(model, with_vocabulary(["b", "a", "c"], ["a", "b"]))
    assert torch.equal(model["t"].weight[:2], TABLE["t.weight"][[1, 0]])
    assert model["t"].weight[2].tolist() == [0.0, 0.0]
    assert report["t.weight"].rows.old_unused == 1


def test_the_initialiser_gets_a_tensor_of_the_full_shape_and_only_new_rows_take_from_it() -> None:
    shapes = []

    def fill(tensor: torch.Tensor) -> None:
        shapes.append(tuple(tensor.shape))
        tensor.fill_(9.0)

    model = table(4)
    tws.warm_start(model, with_vocabulary(NEW, OLD, oov=1, backup_initializer=fill))
    assert set(shapes) == {(4, 2)}
    assert model["t"].weight.tolist() == [[2.0, 3.0], [9.0, 9.0], [4.0, 5.0], [9.0, 9.0]]


def test_with_a_generator_the_rows_are_the_same_each_time() -> None:
    filled = []
    for _ in range(2):
        model = table()
        more = {"generator": torch.Generator().manual_seed(0)}
        more["backup_initializer"] = nn.init.normal_
        tws.warm_start(model, with_vocabulary(NEW, OLD, **more))
        filled.append(model["t"].weight[1].tolist())
    assert filled[0] == filled[1] != [0.0, 0.0]


# -- dtypes, and what stays ------------------------------------------------------------------------

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTS = (torch.int8, torch.int16, torch.int32, torch.int64)


@pytest.mark.parametrize("old", [*FLOATS, *INTS, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize("new", [*FLOATS, *INTS, torch.uint8, torch.bool, torch.complex64])
def test_floats_are_cast_integers_only_to_wider_ones_and_nothing_else(old, new) -> None:
    model = nn.Module()
    model.register_buffer("b", torch.zeros(2, dtype=new))
    source = {"b": torch.tensor([1, 0]).to(old)}
    wider = old in (*INTS, torch.uint8) and new in (*INTS, torch.uint8)
    if wider:
        here, there = torch.iinfo(old), torch.iinfo(new)
        wider = there.min <= here.min and here.max <= there.max
    if old == new or (old in FLOATS and new in FLOATS) or wider:
        tws.warm_start(model, tws.WarmStartSettings(source, [".*"]))
        assert model.b.dtype == new
        assert model.b.tolist() == torch.tensor([1, 0]).to(new).tolist()
    else:
        with pytest.raises(tws.PlanError):
            tws.warm_start(model, tws.WarmStartSettings(source, [".*"]))
        assert not model.b.any()


def test_parameters_are_filled_in_place_and_never_replaced() -> None:
    model = Net().half()
    model.fc.weight = nn.Parameter(model.fc.weight.t(), requires_grad=False)
    about = {
        name: (id(p), p.data_ptr(), p.requires_grad, p.dtype, p.stride(), p.device)
        for name, p in (*model.named_parameters(), *model.named_buffers())
    }
    source = {name: value.float() + 1 for name, value in model.state_dict().items()}
    source["norm.num_batches_tracked"] = torch.tensor(5)
    report = tws.warm_start(model, tws.WarmStartSettings(source, [".*"]))
    assert report.count("kept") == 0
    for name, p in (*model.named_parameters(), *model.named_buffers()):
        now = (id(p), p.data_ptr(), p.requires_grad, p.dtype, p.stride(), p.device)
        assert now == about[name]


def test_all_tensors_are_checked_before_the_first_one_is_written(tmp_path: Path) -> None:
    names = [f"v{at}" for at in range(5)]
    prefix = write_random_bundle(str(tmp_path / "c"), dict.fromkeys(names, (4,)))
    data = next(tmp_path.glob("c.data*"))
    raw = bytearray(data.read_bytes())
    raw[-1] ^= 1  # in the last tensor
    data.write_bytes(raw)
    model = nn.Module()
    for name in names:
        model.register_parameter(name, nn.Parameter(torch.zeros(4)))
    with pytest.raises(tws.CorruptCheckpointError):
        tws.warm_start(model, prefix)
    assert not any(parameter.any() for parameter in model.parameters())


def test_all_errors_are_warm_start_errors_and_problems_come_one_by_one(tmp_path: Path) -> None:
    assert issubclass(tws.PlanError, ValueError)
    assert issubclass(tws.CheckpointNotFoundError, FileNotFoundError)
    for kind in (tws.PlanError, tws.CheckpointNotFoundError, tws.CorruptCheckpointError):
        assert issubclass(kind, tws.WarmStartError)
    model, before = Net(), state_of(Net())
    model.load_state_dict(before)
    with pytest.raises(tws.PlanError) as caught:
        tws.warm_start(model, {"fc.weight": torch.zeros(1), "norm.weight": torch.ones(3)})
    assert len(caught.value.problems) == 3
    assert all(problem.subject in str(caught.value) for problem in caught.value.problems)
    assert unchanged(model, before)
    with pytest.raises(tws.CheckpointNotFoundError):
        tws.warm_start(model, tmp_path)
