"""What differs between two checkpoints."""

from __future__ import annotations

import json

import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle

import torch_warmstart as tws
from torch_warmstart.proof import diff as diff_module


def kinds(found: tws.CheckpointDiff) -> dict[str, str]:
    return {change.key: change.kind for change in found.changes}


OLD = {
    "same": torch.arange(4.0),
    "values": torch.tensor([3.0, 4.0]),
    "shape": torch.zeros(2, 3),
    "dtype": torch.ones(3),
    "moved.from": torch.arange(5.0) + 7,
    "gone": torch.full((2,), 9.0),
}
NEW = {
    "same": torch.arange(4.0),
    "values": torch.tensor([3.0, 0.0]),
    "shape": torch.zeros(3, 2),
    "dtype": torch.ones(3, dtype=torch.float16),
    "moved.to": torch.arange(5.0) + 7,
    "come": torch.full((2,), 8.0),
}


def test_every_way_to_differ_is_told():
    found = tws.diff(OLD, NEW)
    assert kinds(found) == {
        "values": "values",
        "shape": "shape",
        "dtype": "dtype",
        "moved.to": "renamed",
        "come": "added",
        "gone": "removed",
    }
    assert found
    assert found.num_equal == 1
    assert found.stat == (
        "1 added, 1 removed, 1 renamed, 1 of another shape, 1 of another dtype, 1 of other values; "
        "1 tensor equal"
    )


def test_values_come_with_norms():
    (change,) = [c for c in tws.diff(OLD, NEW).changes if c.kind == "values"]
    assert (change.changed, change.old_norm, change.new_norm) == (1, 5.0, 3.0)
    assert (change.norm_of_change, change.max_change) == (4.0, 4.0)


def test_blocks_do_not_change_the_norms(monkeypatch):
    one, other = {"t": torch.rand(100)}, {"t": torch.rand(100)}
    (whole,) = tws.diff(one, other).changes
    monkeypatch.setattr(diff_module, "_BLOCK", 7)
    (parts,) = tws.diff(one, other).changes
    assert parts.norm_of_change == pytest.approx(whole.norm_of_change)
    assert parts.max_change == whole.max_change
    assert parts.old_norm == pytest.approx(float(one["t"].double().norm()))


def test_nothing_differs_between_equals():
    found = tws.diff(OLD, {key: value.clone() for key, value in OLD.items()})
    assert not found
    assert found.stat == "Nothing differs: 6 tensors equal"


def test_what_is_no_number_is_equal_to_itself_and_differs_from_others():
    nan = float("nan")
    assert not tws.diff({"t": torch.tensor([nan, 1.0])}, {"t": torch.tensor([nan, 1.0])})
    (change,) = tws.diff({"t": torch.tensor([1.0])}, {"t": torch.tensor([nan])}).changes
    assert change.changed == 1


def test_integers_that_float64_cannot_tell_apart_differ():
    large = 1 << 60
    found = tws.diff({"t": torch.tensor([large])}, {"t": torch.tensor([large + 1])})
    assert found.changes[0].changed == 1


def test_of_several_tensors_alike_nobody_knows_which_was_renamed():
    found = tws.diff({"a": torch.zeros(2), "b": torch.zeros(2)}, {"c": torch.zeros(2)})
    assert kinds(found) == {"c": "added", "a": "removed", "b": "removed"}


def test_without_values_only_the_index_counts():
    found = tws.diff(OLD, NEW, values=False)
    assert kinds(found)["moved.to"] == "added"
    assert "values" not in kinds(found)
    assert "equal but for their values" in found.stat


def test_what_cannot_be_read_cannot_be_equal():
    sparse = torch.ones(2).to_sparse()
    assert kinds(tws.diff({"s": sparse}, {"s": sparse})) == {"s": "unreadable"}


def test_strings_are_compared(tmp_path):
    for name, value in (("a", b"x"), ("b", b"y")):
        write_bundle(tmp_path / name, [BundleEntry("s", DType.STRING, (1,), [value])])
    one, other = str(tmp_path / "a"), str(tmp_path / "b")
    assert kinds(tws.diff(one, other)) == {"s": "values"}
    assert not tws.diff(one, one)


def test_it_is_a_document_and_a_data_frame():
    found = tws.diff(OLD, NEW)
    document = json.loads(json.dumps(found.to_dict()))
    assert (document["version"], document["kind"]) == (1, "diff")
    assert document["totals"]["changes"] == len(document["changes"]) == 6
    frame = found.to_dataframe()
    assert list(frame["key"]) == [change.key for change in found.changes]
    assert frame.attrs["totals"]["renamed"] == 1


def test_its_text_fits():
    text = tws.diff(OLD, NEW)._sheet().as_text(80)
    assert max(map(len, text.splitlines())) <= 80
    assert "moved.from" in text
    assert repr(tws.diff(OLD, OLD)) == (
        "<CheckpointDiff <state_dict> -> <state_dict>: Nothing differs: 6 tensors equal>"
    )
