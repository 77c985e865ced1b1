"""Parameters that are one in memory, but not the same object, are one variable."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import VocabInfo, WarmStartSettings


class Pair(nn.Module):
    """Two layers over one weight, as people tie them."""

    def __init__(self, how: str, rows: int = 3) -> None:
        super().__init__()
        self.tok = nn.Embedding(rows, 2)
        self.head = nn.Linear(2, rows, bias=False)
        if how == "data":
            self.head.weight.data = self.tok.weight.data
        elif how == "parameter":
            self.head.weight = nn.Parameter(self.tok.weight.data)
        elif how == "detached":
            self.head.weight = nn.Parameter(self.tok.weight.detach().view(rows, 2))
        elif how == "numpy":
            self.head.weight = nn.Parameter(torch.from_numpy(self.tok.weight.detach().numpy()))


_OLD = torch.arange(6.0).view(3, 2)


@pytest.mark.parametrize("there", ["tok.weight", "head.weight"])
@pytest.mark.parametrize("on_missing", ["error", "keep"])
@pytest.mark.parametrize("how", ["data", "parameter", "detached", "numpy"])
def test_one_of_them_in_the_checkpoint_fills_both(how, on_missing, there):
    model = Pair(how)
    (other,) = {"tok.weight", "head.weight"} - {there}
    settings = WarmStartSettings({there: _OLD}, on_missing=on_missing)
    plan = tws.plan_warm_start(model, settings)
    assert f"shares its memory with {there}" in str(plan)
    missing, unexpected = report = tws.apply_plan(plan)
    assert torch.equal(model.tok.weight, _OLD)
    assert torch.equal(model.head.weight, _OLD)
    assert missing == unexpected == ()
    assert [report[name].state for name in (there, other)] == ["copied", "copied"]
    assert report[other].reason == f"shares its memory with {there}"
    assert report[other].keys == (there,)
    report.check(max_kept=0)


def test_a_vocabulary_of_one_of_them_is_the_others():
    model = Pair("data")
    info = VocabInfo(["c", "new", "a"], old_vocab=["a", "b", "c"])
    report = tws.warm_start(model, WarmStartSettings({"tok.weight": _OLD}, ".*", {"tok": info}))
    wanted = torch.stack([_OLD[2], torch.zeros(2), _OLD[0]])
    assert torch.equal(model.tok.weight, wanted)
    assert torch.equal(model.head.weight, wanted)
    assert report["head.weight"].state == "remapped"
    assert "shares its memory with tok.weight" in str(report)


@pytest.mark.parametrize("is_said_of_both", [False, True])
def test_what_is_said_of_the_one_that_is_not_there_is_not_lost(is_said_of_both):
    model = Pair("data")
    info = VocabInfo(["c", "b", "a"], old_vocab=["a", "b", "c"])
    infos = {"head": info, "tok": info} if is_said_of_both else {"head": info}
    settings = WarmStartSettings({"tok.weight": _OLD}, ".*", infos)
    with pytest.raises(tws.PlanError, match="must be said of 'tok.weight'"):
        tws.plan_warm_start(model, settings)
    layouts = {"head.weight": "identity"}
    settings = WarmStartSettings({"tok.weight": _OLD}, var_name_to_layout=layouts)
    with pytest.raises(tws.PlanError, match="var_name_to_layout says"):
        tws.plan_warm_start(model, settings)


def test_a_rule_for_many_that_finds_only_one_of_them():
    model = Pair("data")
    rules = [(r"(.*)", r"old.\1")]
    settings = WarmStartSettings({"old.tok.weight": _OLD}, ".*", None, rules)
    assert tws.warm_start(model, settings)["head.weight"].state == "renamed"
    exact = {"head.weight": "old.head.weight", "tok.weight": "old.tok.weight"}
    with pytest.raises(tws.PlanError, match=r"old\.head\.weight"):
        tws.plan_warm_start(model, WarmStartSettings({"old.tok.weight": _OLD}, ".*", None, exact))


class Flat(nn.Module):
    """A tensor, and parameters that are views of it."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Parameter(torch.zeros(6))
        self.one = nn.Parameter(self.flat.detach()[:4].view(2, 2).t())
        self.other = nn.Parameter(self.flat.detach()[4:])


def test_what_several_others_cover_is_filled_with_them():
    model, one = Flat(), torch.tensor([[1.0, 2], [3, 4]])
    report = tws.warm_start(model, {"one": one, "other": torch.tensor([5.0, 6])})
    assert model.flat.tolist() == [1, 3, 2, 4, 5, 6]
    assert report["flat"].reason == "shares its memory with one and other"
    assert report.missing_keys == ()


def test_what_covers_others_fills_them():
    model = Flat()
    report = tws.warm_start(model, {"flat": torch.arange(6.0)})
    assert model.one.tolist() == [[0, 2], [1, 3]]
    assert report.count("copied") == 3


def test_what_is_covered_in_part_is_missing():
    with pytest.raises(tws.PlanError, match="2 problems") as error:
        tws.plan_warm_start(Flat(), {"other": torch.ones(2)})
    codes = {problem.subject: problem.code for problem in error.value.problems}
    assert codes == dict.fromkeys(["flat", "one"], "not-in-checkpoint")


def test_what_is_not_selected_fills_nobody():
    with pytest.raises(tws.PlanError, match=r"head\.weight is not in the checkpoint"):
        tws.plan_warm_start(Pair("data"), WarmStartSettings({"tok.weight": _OLD}, "head"))


def test_a_hook_is_not_told_that_it_is_missing():
    model, told = Pair("data"), []
    hook = lambda _, keys: told.append(list(keys.missing_keys))  # noqa: E731
    model.register_load_state_dict_post_hook(hook)
    model.head.register_load_state_dict_pre_hook(lambda *_: None)
    tws.warm_start(model, {"tok.weight": _OLD})
    assert told == [[]]
    assert torch.equal(model.head.weight, _OLD)


def test_slots_of_both_are_never_made_of_one():
    model = Pair("data")
    old = nn.Embedding(3, 2)
    optimizer = torch.optim.Adam(old.parameters())
    old.weight.grad = torch.ones(3, 2)
    optimizer.step()
    saved = {"model": {"tok.weight": _OLD}, "optimizer": optimizer.state_dict()}
    mine = torch.optim.Adam(model.parameters())
    with pytest.raises(tws.PlanError, match=r"head\.weight/exp_avg"):
        tws.warm_start(model, saved, optimizer=mine)
    assert not mine.state
    own = torch.optim.Adam([model.tok.weight])
    report = tws.warm_start(model, saved, optimizer=own)
    assert torch.equal(
        own.state[model.tok.weight]["exp_avg"], optimizer.state[old.weight]["exp_avg"]
    )
    assert report["head.weight"].state == "copied"


def _trained(named: bool):
    model = Pair("parameter")
    named_or_not = model.named_parameters() if named else model.parameters()
    optimizer = torch.optim.Adam(named_or_not)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 1.0 + number)
    optimizer.step()
    return model, optimizer


def test_each_of_them_keeps_its_own_slots():
    old, old_optimizer = _trained(named=True)
    model = Pair("parameter")
    optimizer = torch.optim.Adam(model.parameters())
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    tws.warm_start(model, WarmStartSettings(saved), optimizer=optimizer)
    for mine, theirs in zip(model.parameters(), old.parameters(), strict=True):
        expected = old_optimizer.state[theirs]["exp_avg"]
        assert torch.equal(optimizer.state[mine]["exp_avg"], expected)


def test_positions_of_slots_do_not_tell_which_of_them_is_which():
    old, old_optimizer = _trained(named=False)
    model = Pair("parameter")
    optimizer = torch.optim.Adam(model.parameters())
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    with pytest.raises(tws.PlanError, match="which are which is unclear"):
        tws.warm_start(model, WarmStartSettings(saved), optimizer=optimizer)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("where", ["memory", "file"])
def test_the_other_name_of_a_tied_weight_is_no_unused_key(tmp_path, where):
    state = {**Tied().state_dict(), "other.weight": torch.ones(5, 4)}
    if where == "file":
        torch.save(state, tmp_path / "m.pt")
        state = tmp_path / "m.pt"
    report = tws.warm_start(Tied(), WarmStartSettings(state, [".*"]))
    assert report.unexpected_keys == ("other.weight",)
    assert report.summary.endswith("; 1 key of the checkpoint was not used")
