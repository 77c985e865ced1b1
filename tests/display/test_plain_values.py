"""What is shown as plain values: documents with a version and totals, and data frames."""

from __future__ import annotations

import json
import sys

import pytest
import shown_things
import torch

import torch_warmstart as tws

RECORDS = {
    "plan": "variables",
    "report": "variables",
    "suggestions": "suggestions",
    "checkpoint": "tensors",
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_document_has_a_version_a_kind_and_totals(name):
    document = json.loads(json.dumps(shown_things.EVERY[name]().to_dict()))
    assert document["version"] == 1
    assert document["kind"] == name
    assert document["totals"]
    assert document[RECORDS[name]]


def test_the_totals_of_a_plan_and_its_report_add_up():
    plan = shown_things.plan().to_dict()
    report = shown_things.report().to_dict()
    for totals, variables in ((d["totals"], d["variables"]) for d in (plan, report)):
        assert totals["variables"] == len(variables) == sum(totals["states"].values())
        rows = totals["rows"]
        new = ("copied", "oov_copied", "initialised", "oov_initialised", "left")
        assert rows["total"] == sum(rows[name] for name in new) == 7
    assert plan["totals"]["rows"] == report["totals"]["rows"]


@pytest.mark.parametrize("name", RECORDS)
def test_a_data_frame_has_a_row_for_each(name):
    shown = shown_things.EVERY[name]()
    frame = shown.to_dataframe()
    assert len(frame) == len(shown.to_dict()[RECORDS[name]])
    assert frame.attrs == {
        key: value for key, value in shown.to_dict().items() if key in ("version", "kind", "totals")
    }


def test_rows_are_columns_of_their_own():
    frame = shown_things.report().to_dataframe().set_index("name")
    assert frame.loc["country_of_origin.weight", "rows_copied"] == 3
    assert frame["rows_copied"].isna().sum() == len(frame) - 1
    assert "rows" not in frame


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(tws.MissingDependencyError, match="pip install pandas"):
        shown_things.report().to_dataframe()


@pytest.mark.parametrize("name", RECORDS)
def test_a_repr_is_a_line(name):
    text = repr(shown_things.EVERY[name]())
    assert text.startswith("<")
    assert "\n" not in text
    assert len(text) < 160


def test_rows_that_stay_in_place_and_rows_that_move_are_counted():
    info = tws.VocabInfo(["a", "x", "b"], 3, 0, ["a", "b", "c"])
    model = shown_things.torch.nn.Embedding(3, 2)
    source = {"weight": shown_things.torch.ones(3, 2)}
    plan = tws.plan_warm_start(model, tws.WarmStartSettings(source, ".*", {"weight": info}))
    rows = plan.items[0].rows
    assert (rows.copied, rows.moved) == (2, 1)
    assert dict(rows.parts)["in place"] == 1
    assert "rows: 2 copied (1 moved), 1 initialised; 1 dropped\n" in str(plan)


def test_what_is_not_shown_as_a_table_has_a_short_repr_too():
    model = torch.nn.Linear(300, 300)
    plan = tws.plan_warm_start(model, model.state_dict())
    assert len(repr(plan.items[0].variable)) < 80
    assert len(repr(plan.items[0])) < 1_000
    difference = tws.diff_vocabularies(["a", "b"], ["b", "c", "d"])
    assert repr(difference) == "<VocabularyDiff: 1 moved, 2 new, 1 dropped>"
    done = tws.convert({"a": torch.ones(2)}, "a.safetensors", dry_run=True)
    assert repr(done).startswith("<Conversion: Would write a.safetensors from ")
