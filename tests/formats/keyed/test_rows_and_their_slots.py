"""A row and its slots are of one id and of one checkpoint, or the slots begin anew."""

from __future__ import annotations

import re

import pytest
import torch
from bundle_writer import write_bundle
from embedding_variable_writer import deeprec, floats
from test_embedding_variables import rows_of
from torch import nn

import torch_warmstart as tws

ADAGRAD, FRESH = "emb/Adagrad", [0.25, 0.25]


def start(url, new, make=None, **info):
    """The rows, and the optimizer's state of them."""
    model = nn.ModuleDict({"emb": nn.Embedding(len(new), 2)})
    made = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.25)
    optimizer = made if make is None else make(model.parameters())
    infos = {"emb.weight": tws.VocabInfo(new, **info)}
    settings = tws.WarmStartSettings(str(url), ".*", infos, {"emb.weight": "emb"})
    report = tws.warm_start(model, settings, optimizer=optimizer)
    state = {name: held.tolist() for name, held in optimizer.state[model["emb"].weight].items()}
    return model["emb"].weight.tolist(), state, report


def test_a_slot_of_an_id_without_a_row_begins_anew(tmp_path):
    entries = [*deeprec("emb", rows_of([7, 4])), *deeprec(ADAGRAD, rows_of([4, 9, 7], 0.5))]
    write_bundle(tmp_path / "m", entries)
    rows, state, report = start(tmp_path / "m", [7, 9, 4])
    assert rows == [[7, -7], [0, 0], [4, -4]]
    assert state["sum"] == [[7.5, -7.5], FRESH, [4.5, -4.5]]
    assert len(re.findall(r"rows: 2 copied \(\w+ moved\), 1 initialised", str(report))) == 2


def test_min_found_asks_of_the_table_and_not_of_what_its_slots_lack(tmp_path):
    write_bundle(
        tmp_path / "m", [*deeprec("emb", rows_of([7, 4])), *deeprec(ADAGRAD, rows_of([4], 0.5))]
    )
    rows, state, _ = start(tmp_path / "m", [7, 4], min_found=1.0)
    assert rows == [[7, -7], [4, -4]]
    assert state["sum"] == [FRESH, [4.5, -4.5]]


@pytest.mark.parametrize(
    "asked", [{"min_frequency": 5}, {"where": lambda columns: columns["frequency"] > 4}]
)
def test_a_slot_of_an_id_that_is_filtered_begins_anew(tmp_path, asked):
    entries = [
        *deeprec("emb", rows_of([7, 4]), freqs={7: 1, 4: 9}),
        *deeprec(ADAGRAD, rows_of([4, 7], 0.5)),
    ]
    write_bundle(tmp_path / "m", entries)
    rows, state, _ = start(tmp_path / "m", [7, 4], **asked)
    assert rows == [[0, 0], [4, -4]]
    assert state["sum"] == [FRESH, [4.5, -4.5]]


def test_slots_of_an_id_come_together_or_not_at_all(tmp_path):
    entries = [
        *deeprec("emb", rows_of([4, 7, 9])),
        *deeprec("emb/Adam", rows_of([9, 7, 4], 0.5)),
        *deeprec("emb/Adam_1", rows_of([4, 7], 0.25)),  # 9 has a first average alone
        floats("beta1_power", 0.9**3),
        floats("beta2_power", 0.999**3),
    ]
    write_bundle(tmp_path / "m", entries)
    rows, state, _ = start(tmp_path / "m", [9, 4, 7], torch.optim.Adam)
    assert rows == [[9, -9], [4, -4], [7, -7]]
    assert state["exp_avg"] == [[0, 0], [4.5, -4.5], [7.5, -7.5]]
    assert state["exp_avg_sq"] == [[0, 0], [4.25, -4.25], [7.25, -7.25]]


def test_what_is_back_has_row_and_slots_of_one_checkpoint(tmp_path):
    """9 has a row in b and c, a slot in a and c; 7 has both in a."""
    for name, ids, slots, offset in (
        ("a", [7], [7, 9], 0),
        ("b", [9, 7], [7], 100),
        ("c", [9, 7], [9, 7], 1000),
    ):
        entries = [
            *deeprec("emb", rows_of(ids, offset)),
            *deeprec(ADAGRAD, rows_of(slots, offset + 0.5)),
        ]
        write_bundle(tmp_path / name, entries)
    a, b, c = (str(tmp_path / name) for name in "abc")

    def older(*urls):
        return {"fallback": [(url, tws.FROM_CHECKPOINT) for url in urls]}

    rows, state, _ = start(a, [7, 9], **older(b, c))
    assert rows == [[7, -7], [109, -109]]
    assert state["sum"] == [[7.5, -7.5], FRESH]
    rows, state, _ = start(a, [7, 9], **older(c, b))
    assert rows == [[7, -7], [1009, -1009]]
    assert state["sum"] == [[7.5, -7.5], [1009.5, -1009.5]]


def test_slots_come_together_whichever_axis_is_named_first(tmp_path):
    entries = [
        *deeprec("emb", rows_of([4, 7])),
        *deeprec("emb/Adam", rows_of([7, 4], 0.5)),
        *deeprec("emb/Adam_1", rows_of([7], 0.25)),
        floats("beta1_power", 0.9**3),
        floats("beta2_power", 0.999**3),
    ]
    write_bundle(tmp_path / "m", entries)
    found = []
    infos = [tws.VocabInfo([4, 7]), tws.ClipOrPad(axis=1)]
    for order in (infos, infos[::-1]):
        model = nn.ModuleDict({"emb": nn.Embedding(2, 3)})
        optimizer = torch.optim.Adam(model.parameters())
        settings = tws.WarmStartSettings(
            str(tmp_path / "m"), ".*", {"emb.weight": order}, {"emb.weight": "emb"}
        )
        tws.warm_start(model, settings, optimizer=optimizer)
        state = optimizer.state[model["emb"].weight]
        found.append([state["exp_avg"].tolist(), state["exp_avg_sq"].tolist()])
    assert found[0] == [[[0, 0, 0], [7.5, -7.5, 0]], [[0, 0, 0], [7.25, -7.25, 0]]]
    assert found[1] == found[0]


@pytest.mark.parametrize("info", [None, tws.ClipOrPad(), tws.VocabInfo([7], old_vocab=[7])])
def test_a_part_of_a_table_is_nobodys_table(tmp_path, info):
    entries = [*deeprec("emb/part_0", rows_of([4])), *deeprec("emb/part_1", rows_of([7]))]
    write_bundle(tmp_path / "m", entries)
    model = nn.ModuleDict({"emb": nn.Embedding(1, 2)})
    infos = {"emb.weight": info} if info is not None else None
    names = {"emb.weight": "emb/part_1-values"}
    with pytest.raises(tws.PlanError, match="one of 2 parts of a table .* name the table, 'emb'"):
        tws.warm_start(model, tws.WarmStartSettings(str(tmp_path / "m"), ".*", infos, names))


def test_rows_of_ids_are_not_clipped_or_padded(tmp_path):
    write_bundle(tmp_path / "m", deeprec("emb", rows_of([4, 7])))
    model = nn.ModuleDict({"emb": nn.Embedding(1, 2)})
    settings = tws.WarmStartSettings(
        str(tmp_path / "m"), ".*", {"emb.weight": tws.ClipOrPad()}, {"emb.weight": "emb"}
    )
    with pytest.raises(tws.PlanError, match="rows are those of the ids that it keeps"):
        tws.warm_start(model, settings)


def test_an_older_checkpoint_may_have_nothing_that_a_filter_leaves(tmp_path):
    """Versions of weeks ago are all before `since_version`."""
    write_bundle(tmp_path / "a", deeprec("emb", rows_of([7, 4]), versions={7: 90, 4: 10}))
    write_bundle(tmp_path / "b", deeprec("emb", rows_of([9, 4], 100), versions={9: 5, 4: 5}))
    older = {"fallback": [(str(tmp_path / "b"), tws.FROM_CHECKPOINT)]}
    model = nn.ModuleDict({"emb": nn.Embedding(3, 2)})
    for since, expected in ((50, [[7, -7], [0, 0], [0, 0]]), (5, [[7, -7], [109, -109], [4, -4]])):
        info = tws.VocabInfo([7, 9, 4], since_version=since, **older)
        settings = tws.WarmStartSettings(
            str(tmp_path / "a"), ".*", {"emb.weight": info}, {"emb.weight": "emb"}
        )
        tws.warm_start(model, settings)
        assert model["emb"].weight.tolist() == expected


def test_keys_that_are_vectors_are_no_ids(tmp_path):
    entries = [floats("mem-keys", [[1, 2], [3, 4]]), floats("mem-values", [[5, 6], [7, 8]])]
    write_bundle(tmp_path / "m", entries)
    model = nn.ModuleDict({"emb": nn.Embedding(2, 2)})
    names = {"emb.weight": "mem-values"}
    tws.warm_start(model, tws.WarmStartSettings(str(tmp_path / "m"), ".*", None, names))
    assert model["emb"].weight.tolist() == [[5, 6], [7, 8]]


def test_a_slot_has_no_fallback_of_its_own(tmp_path):
    write_bundle(
        tmp_path / "a", [*deeprec("emb", rows_of([7])), *deeprec(ADAGRAD, rows_of([7], 9))]
    )
    write_bundle(
        tmp_path / "b", [*deeprec("emb", rows_of([9])), *deeprec(ADAGRAD, rows_of([9], 9))]
    )
    older = [(str(tmp_path / "b"), tws.FROM_CHECKPOINT)]
    info = tws.VocabInfo([7, 9], fallback=older)

    def sums(own):
        model = nn.ModuleDict({"emb": nn.Embedding(2, 2)})
        optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.25)
        infos = {"emb.weight": info, "emb.weight/sum": own}
        settings = tws.WarmStartSettings(
            str(tmp_path / "a"), ["emb.weight"], infos, {"emb.weight": "emb"}
        )
        tws.warm_start(model, settings, optimizer=optimizer)
        return optimizer.state[model["emb"].weight]["sum"].tolist()

    assert sums(info) == [[16, -16], [18, -18]]
    assert sums(tws.VocabInfo([7, 9])) == [[16, -16], FRESH]
    with pytest.raises(tws.PlanError, match="from where its parameter's do") as told:
        sums(tws.VocabInfo([7, 9], fallback=older))
    assert told.value.problems[0].code == "fallback-of-slot"
