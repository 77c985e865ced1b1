"""Several checkpoints in one start: one plan, whole or not at all; rows that are back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def model_of(value, rows=3):
    model = nn.ModuleDict({"enc": nn.Linear(2, 2), "emb": nn.Embedding(rows, 2)})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def saved(path, model, optimizer=None):
    state = {"model": model.state_dict()}
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
    torch.save(state, path)
    return str(path)


def adagrad(model, value=0.1):
    return torch.optim.Adagrad(model.parameters(), initial_accumulator_value=value)


def test_a_list_is_one_plan_and_one_report(tmp_path):
    one, two = model_of(1.0), model_of(2.0)
    urls = [saved(tmp_path / "1.pt", one, adagrad(one, 5.0)), saved(tmp_path / "2.pt", two)]
    model = model_of(0.0)
    optimizer = adagrad(model)
    settings = [
        tws.WarmStartSettings(urls[0], "enc.*"),
        tws.WarmStartSettings(urls[1], ["emb.*weight$"]),
    ]
    report = tws.warm_start(model, settings, optimizer=optimizer)
    assert float(model["enc"].weight.detach().mean()) == 1.0
    assert float(model["emb"].weight.detach().mean()) == 2.0
    assert report["enc.weight"].key.startswith("1:")
    assert report["emb.weight"].key.startswith("2:")
    assert report["enc.weight/sum"].state == "copied"
    assert report["emb.weight/sum"].state == "kept"
    assert float(optimizer.state[model["enc"].weight]["sum"].mean()) == 5.0
    assert float(optimizer.state[model["emb"].weight]["sum"].mean()) == pytest.approx(0.1)
    assert "1.pt" in report.source
    assert "2.pt" in report.source


def test_what_two_would_fill_is_an_error_unless_ordered(tmp_path):
    urls = [saved(tmp_path / f"{n}.pt", model_of(float(n))) for n in (1, 2)]
    model = model_of(0.0)
    settings = [tws.WarmStartSettings(urls[0], "enc.*"), urls[1]]
    with pytest.raises(
        tws.PlanError, match=r"enc.weight would be taken from two .*overlap='first'"
    ) as told:
        tws.warm_start(model, settings)
    assert {problem.code for problem in told.value.problems} == {"claimed-twice"}
    assert all(bool((p == 0).all()) for p in model.parameters())
    tws.warm_start(model, settings, overlap="first")
    assert float(model["enc"].weight.detach().mean()) == 1.0
    assert float(model["emb"].weight.detach().mean()) == 2.0
    with pytest.raises(tws.SettingsError, match="overlap is"):
        tws.warm_start(model, settings, overlap="last")
    with pytest.raises(tws.SettingsError, match="at least one"):
        tws.warm_start(model, [])


def test_problems_of_all_are_told_and_nothing_is_changed(tmp_path):
    urls = [
        saved(tmp_path / "1.pt", model_of(1.0)),
        saved(tmp_path / "2.pt", model_of(2.0, rows=5)),
    ]
    model = model_of(0.0)
    settings = [
        tws.WarmStartSettings(urls[0], "enc.*", None, {"enc.bias": "no"}),
        tws.WarmStartSettings(urls[1], "emb.*"),
    ]
    with pytest.raises(tws.PlanError, match="2 checkpoints has 2 problems") as told:
        tws.warm_start(model, settings)
    assert {problem.code for problem in told.value.problems} == {
        "missing-tensor",
        "shape-mismatch",
    }
    assert all(bool((p == 0).all()) for p in model.parameters())


def test_what_is_damaged_in_the_second_leaves_the_model_as_it_was(tmp_path):
    urls = [saved(tmp_path / f"{n}.pt", model_of(float(n))) for n in (1, 2)]
    model = model_of(0.0)
    settings = [tws.WarmStartSettings(urls[0], "enc.*"), tws.WarmStartSettings(urls[1], "emb.*")]
    plan = tws.plan_warm_start(model, settings)

    def refuse(*_, **__):
        raise RuntimeError("no")

    model["emb"].register_load_state_dict_pre_hook(refuse)
    with pytest.raises(tws.WarmStartError):
        tws.apply_plan(plan)
    assert all(bool((p == 0).all()) for p in model.parameters())


def table(path, ids, offset=0.0):
    """A model whose row of id i is [i, i + offset], its Adagrad sums a hundred more."""
    model = nn.ModuleDict({"emb": nn.Embedding(len(ids), 2)})
    rows = torch.tensor([[i, i + offset] for i in ids])
    with torch.no_grad():
        model["emb"].weight.copy_(rows)
    optimizer = adagrad(model)
    optimizer.state[model["emb"].weight]["sum"].copy_(rows + 100)
    url = saved(path, model, optimizer)
    tws.save_vocabularies(url, {"emb.weight": [int(i) for i in ids]})
    return url


def test_rows_and_slots_of_what_is_back_come_from_older_checkpoints(tmp_path):
    today = table(tmp_path / "today.pt", [1.0, 2.0])
    yesterday = table(tmp_path / "yesterday.pt", [2.0, 3.0], 0.25)
    last_week = table(tmp_path / "week.pt", [4.0, 3.0, 1.0], 0.5)
    new = [4, 3, 2, 1, 9]
    model = nn.ModuleDict({"emb": nn.Embedding(5, 2)})
    optimizer = adagrad(model)
    info = tws.VocabInfo(
        new,
        fallback=[(yesterday, tws.FROM_CHECKPOINT), (last_week, [4, 3, 1])],
        backup_initializer=lambda tensor: torch.full_like(tensor, -1.0),
    )
    settings = tws.WarmStartSettings(today, ".*", {"emb.weight": info})
    report = tws.warm_start(model, settings, optimizer=optimizer)
    expected = [[4, 4.5], [3, 3.25], [2, 2], [1, 1], [-1, -1]]
    assert model["emb"].weight.tolist() == expected
    sums = optimizer.state[model["emb"].weight]["sum"].tolist()
    assert sums[:4] == [[a + 100, b + 100] for a, b in expected[:4]]
    assert sums[4] == [pytest.approx(0.1)] * 2
    rows = report["emb.weight"].rows
    assert (rows.copied, rows.returned, rows.initialised, rows.total) == (2, 2, 1, 5)
    assert "2 back from older checkpoints" in str(rows)
    assert rows.entries == 5
    assert "10 remapped rows: 4 copied, 4 back, 2 initialised" in str(report)
    assert sum(count for what, count in rows.parts if what != "dropped") == rows.total
    report.check(min_found=0.8)  # those that are back were found, too
    with pytest.raises(tws.WarmStartError, match=r"4 of 5 new entries \(80.0%\)"):
        report.check(min_found=0.9)


@pytest.mark.parametrize("min_found", [0.6, 0.75, 0.8])
def test_what_is_back_counts_as_found_for_a_plan_as_for_a_report(tmp_path, min_found):
    today, monday = (table(tmp_path / f"{day}.pt", [1.0, 2.0]) for day in ("today", "monday"))
    info = tws.VocabInfo(
        ["a", "m", "b", "new"],
        old_vocab=["a", "b"],
        fallback=[(monday, ["m", "n"])],
        min_found=min_found,
    )
    model = nn.ModuleDict({"emb": nn.Embedding(4, 2)})
    settings = tws.WarmStartSettings(today, ".*", {"emb.weight": info})
    if min_found <= 0.75:
        tws.warm_start(model, settings).check(min_found=min_found)
        return
    with pytest.raises(tws.PlanError, match=r"3 of 4 new entries \(75.0%\) are in .* or back from"):
        tws.warm_start(model, settings)


def test_min_found_does_not_ask_for_the_state_of_what_is_back(tmp_path):
    today, model = table(tmp_path / "today.pt", [1.0]), nn.ModuleDict({"emb": nn.Embedding(2, 2)})
    older = saved(tmp_path / "older.pt", nn.ModuleDict({"emb": nn.Embedding(1, 2)}))  # and no state
    info = tws.VocabInfo([1, 2], fallback=[(older, [2])], min_found=1.0)
    settings = tws.WarmStartSettings(today, ".*", {"emb.weight": info})
    report = tws.warm_start(model, settings, optimizer=adagrad(model))
    assert report.check(min_found=1.0)["emb.weight/sum"].rows.initialised == 1


def test_a_fallback_fits_or_is_refused(tmp_path):
    today = table(tmp_path / "today.pt", [1.0, 2.0])
    other = saved(tmp_path / "other.pt", nn.ModuleDict({"emb": nn.Embedding(2, 3)}))
    model = nn.ModuleDict({"emb": nn.Embedding(3, 2)})
    before = model["emb"].weight.detach().clone()
    info = tws.VocabInfo([1, 2, 3], fallback=[(other, [3, 4])])
    with pytest.raises(tws.PlanError, match="other.pt"):
        tws.warm_start(model, tws.WarmStartSettings(today, ".*", {"emb.weight": info}))
    assert torch.equal(model["emb"].weight.detach(), before)
    with pytest.raises(tws.SettingsError, match="list of pairs"):
        tws.VocabInfo([1], fallback=["last_week.pt"])
