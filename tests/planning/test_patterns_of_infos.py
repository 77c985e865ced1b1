"""One pattern for many tables: every table whose whole name it matches gets what it says."""

from __future__ import annotations

import re

import pytest
import torch

import torch_warmstart as tws

TABLES = ("city", "genre", "language")
OWN_CITY = {"tables.city.weight": tws.ClipOrPad()}


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = torch.nn.ModuleDict({name: torch.nn.Embedding(3, 2) for name in TABLES})
        self.head = torch.nn.Linear(2, 1)
        for parameter in self.parameters():
            torch.nn.init.zeros_(parameter)


def saved() -> dict[str, torch.Tensor]:
    state = {f"tables.{name}.weight": torch.rand(2, 2) + 1 for name in TABLES}
    return {**state, "head.weight": torch.ones(1, 2), "head.bias": torch.ones(1)}


def info(match: re.Match[str]) -> tws.VocabInfo:
    return tws.VocabInfo([f"{match[1]} c", f"{match[1]} b", "new"], old_vocab=old(match[1]))


def old(name: str) -> list[str]:
    return [f"{name} a", f"{name} b"]


@pytest.mark.parametrize("pattern", [r"tables\.(\w+)\.weight", r"tables/(\w+)/weight"])
def test_a_function_says_it_for_each_table(pattern: str) -> None:
    model, state = Model(), saved()
    settings = tws.WarmStartSettings(state, var_name_to_vocab_info={re.compile(pattern): info})
    report = tws.warm_start(model, settings)
    for name in TABLES:
        weight = model.tables[name].weight.detach()
        assert torch.equal(weight[1], state[f"tables.{name}.weight"][1])
        assert not weight[[0, 2]].any()
        assert report[f"tables.{name}.weight"].state == "remapped"
    assert report["head.weight"].state == "copied"


def test_a_slash_may_be_there_to_exclude() -> None:
    """As in `vars_to_warm_start`: a pattern that spells one sees names with slashes only."""
    infos = {re.compile("tables/city[^/]*"): tws.ClipOrPad()}
    settings = tws.WarmStartSettings(saved(), ".*", infos)
    with pytest.raises(tws.SettingsError, match="matches the whole name of no selected variable"):
        tws.plan_warm_start(Model(), settings)


def test_a_name_comes_before_a_pattern_and_the_first_pattern_before_others() -> None:
    infos = {
        re.compile(r"tables\.(city|genre)\.weight"): lambda m: tws.ClipOrPad(),
        re.compile(r"tables\..*\.weight"): info_of_all,
        "tables.city.weight": tws.VocabInfo(["x", "y", "z"], old_vocab=["z", "x"]),
    }
    plan = tws.plan_warm_start(Model(), tws.WarmStartSettings(saved(), ".*", infos))
    found = {item.name: item.vocab for item in plan.items if item.vocab is not None}
    assert found["tables.city.weight"] is infos["tables.city.weight"]
    assert isinstance(found["tables.genre.weight"], tws.ClipOrPad)
    assert found["tables.language.weight"].new_vocab == ["p", "q", "r"]


def info_of_all(match: re.Match[str]) -> tws.VocabInfo:
    return tws.VocabInfo(["p", "q", "r"], old_vocab=["r", "q"])


def test_one_info_is_for_all_and_none_leaves_a_table_as_it_is_looked_for() -> None:
    infos = {re.compile(r"tables\.(?!city).*"): tws.ClipOrPad()}
    state = saved() | {"tables.city.weight": torch.full((3, 2), 5.0)}
    model = Model()
    tws.warm_start(model, tws.WarmStartSettings(state, ".*", infos))
    assert model.tables["city"].weight.detach().eq(5).all()
    assert torch.equal(model.tables["genre"].weight.detach()[:2], state["tables.genre.weight"])
    none = {re.compile(r"tables\.city\.weight"): lambda m: None, **infos}
    tws.warm_start(Model(), tws.WarmStartSettings(state, ".*", none))


def test_only_what_has_an_info_is_taken_with_none() -> None:
    settings = tws.WarmStartSettings(saved(), None, {re.compile(r"tables\.(\w+)\.weight"): info})
    plan = tws.plan_warm_start(Model(), settings)
    assert [item.state for item in plan.items] == ["remapped"] * 3 + ["kept"] * 2


def test_slots_follow_their_tables() -> None:
    model = Model()
    optimizer = torch.optim.Adagrad(model.parameters())
    old_model = torch.nn.ModuleDict({"tables": torch.nn.ModuleDict()})
    for name in TABLES:
        old_model["tables"][name] = torch.nn.Embedding(2, 2)
    old_model["head"] = torch.nn.Linear(2, 1)
    before = torch.optim.Adagrad(old_model.parameters())
    sum(p.sum() for p in old_model.parameters()).backward()
    before.step()
    state = {"model": old_model.state_dict(), "optimizer": before.state_dict()}
    infos = {re.compile(r"tables\.(\w+)\.weight"): info}
    tws.warm_start(model, tws.WarmStartSettings(state, ".*", infos), optimizer=optimizer)
    for name in TABLES:
        sums = optimizer.state[model.tables[name].weight]["sum"]
        assert sums.eq(torch.tensor([[0.0], [1.0], [0.0]])).all()


@pytest.mark.parametrize(
    ("infos", "message"),
    [
        ({re.compile("tabel.*"): tws.ClipOrPad()}, r"'tabel\.\*' matches the whole name of no"),
        ({re.compile(r"tables\.city"): tws.ClipOrPad()}, "matches the whole name of no selected"),
        (
            {re.compile("tables.*"): tws.ClipOrPad(), re.compile(r".*city\..*"): tws.ClipOrPad()},
            r"'\.\*city\\\\\.\.\*' is not used, because 'tables\.\*' stands before it",
        ),
        (
            {re.compile(r"tables\.city\..*"): tws.ClipOrPad(), **OWN_CITY},
            r"city\\\\\.\.\*' is not used, because each variable that it matches has an entry of",
        ),
        (
            {
                re.compile(".*genre.*"): tws.ClipOrPad(),
                re.compile(r"tables\.(city|genre)\..*"): tws.ClipOrPad(),
                **OWN_CITY,
            },
            r"because '\.\*genre\.\*' stands before it .*, or has an entry of its own: the first",
        ),
        (
            {re.compile(r"tables.*"): lambda m: "city.txt"},
            "a str for 'tables.city.weight'",
        ),
    ],
)
def test_what_a_pattern_cannot_be_is_said(infos: dict, message: str) -> None:
    with pytest.raises(tws.SettingsError, match=message):
        tws.plan_warm_start(Model(), tws.WarmStartSettings(saved(), ".*", infos))


def test_what_a_function_raises_is_its_cause() -> None:
    infos = {re.compile(r"tables\.(\w+)\.weight"): lambda m: {}[m[1]]}
    with pytest.raises(tws.WarmStartError, match="KeyError for .tables.city.w") as told:
        tws.plan_warm_start(Model(), tws.WarmStartSettings(saved(), ".*", infos))
    assert isinstance(told.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "infos", [{re.compile("a"): 3}, {re.compile(b"a"): tws.ClipOrPad()}, {3: 4}]
)
def test_settings_are_checked_when_they_are_made(infos: dict) -> None:
    with pytest.raises(tws.SettingsError, match="var_name_to_vocab_info"):
        tws.WarmStartSettings({}, ".*", infos)


def test_a_settings_file_has_patterns_but_no_functions(tmp_path) -> None:
    settings = tws.WarmStartSettings("x", ".*", {re.compile("a"): tws.ClipOrPad()})
    tws.save_settings(tmp_path / "s.toml", settings)
    assert tws.load_settings(tmp_path / "s.toml") == settings
    made = tws.WarmStartSettings("x", ".*", {re.compile("a"): lambda match: tws.ClipOrPad()})
    with pytest.raises(tws.SettingsError, match="var_name_to_vocab_info"):
        tws.save_settings(tmp_path / "t.toml", made)


@pytest.mark.parametrize("is_tied", [True, False])
def test_one_info_may_be_for_both_of_two_tables_tied_or_not(is_tied: bool) -> None:
    def made(rows: int) -> torch.nn.ModuleDict:
        tables = torch.nn.Embedding(rows, 2), torch.nn.Linear(2, rows, bias=False)
        if is_tied:
            tables[1].weight = tables[0].weight
        return torch.nn.ModuleDict(dict(zip(("one", "other"), tables, strict=True)))

    before, model = made(3), made(2)
    names = ["one.weight", "other.weight"]
    infos = dict.fromkeys(names, tws.VocabInfo(["c", "x"], old_vocab=["a", "b", "c"]))
    tws.warm_start(model, tws.WarmStartSettings(before.state_dict(), ".*", infos))
    kept = [before.get_parameter(name)[2].tolist() for name in names]
    tws.change_vocabulary(before, infos)
    for made_of in (model, before):
        assert [made_of.get_parameter(name).tolist() for name in names] == [
            [row, [0.0, 0.0]] for row in kept
        ]
    other = {**infos, "other.weight": tws.VocabInfo(["c", "x"], old_vocab=["a", "b", "c"])}
    if is_tied:
        with pytest.raises(tws.PlanError, match="are the same variable"):
            tws.change_vocabulary(model, other)
