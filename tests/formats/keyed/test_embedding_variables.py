"""DeepRec's and TFRA's embedding variables in bundles: right rows, right slots, or refused."""

from __future__ import annotations

import random

import pytest
import torch
from bundle_writer import write_bundle
from embedding_variable_writer import deeprec, floats, increment, ints, tfra
from torch import nn

import torch_warmstart as tws

NEW = [70_001, 5, 999_999, 12, 31]


def rows_of(ids, offset=0.0):
    return {i: [i + offset, -i - offset] for i in ids}


def write(tmp_path, *groups):
    write_bundle(tmp_path / "m", [entry for group in groups for entry in group])
    return str(tmp_path / "m")


def model_of(count):
    model = nn.ModuleDict({"emb": nn.Embedding(count, 2)})
    nn.init.constant_(model["emb"].weight, 7.0)
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.1)
    return model, optimizer


def start(url, optimizer=None, model=None, **info):
    if model is None:
        model, _ = model_of(len(NEW))
    settings = tws.WarmStartSettings(
        url,
        ".*",
        {"emb.weight": tws.VocabInfo(NEW, **info)},
        {"emb.weight": "emb"},
    )
    return model, tws.warm_start(model, settings, optimizer=optimizer)


@pytest.mark.parametrize("new_form", [True, False])
def test_rows_and_slots_go_by_their_own_keys(tmp_path, new_form):
    weights = rows_of([12, 5, 70_001, 88])
    slots = rows_of([70_001, 12], offset=0.5)
    url = write(
        tmp_path,
        deeprec("emb", weights, new_form=new_form),
        deeprec("emb/Adagrad", slots, new_form=new_form),
    )
    model, optimizer = model_of(len(NEW))
    _, report = start(url, optimizer, model)
    assert model["emb"].weight.tolist() == [weights.get(i, [0.0, 0.0]) for i in NEW]
    found = optimizer.state[model["emb"].weight]["sum"]
    expected = torch.tensor([slots.get(i, [0.1, 0.1]) for i in NEW])
    assert torch.equal(found, expected)
    assert report["emb.weight"].rows.copied == 3
    assert report["emb.weight/sum"].rows.copied == 2


def test_the_bytes_are_those_of_the_export_format():
    keys, values, versions, freqs, offsets, *_ = deeprec("emb", {2003: [1.0, 2.0]})
    # embedding_var_ckpt_data.cc writes the tensors under these names; keys as they lie in memory.
    assert (keys.key, keys.data) == ("emb-keys", b"\xd3\x07" + b"\0" * 6)
    assert values.data == b"\0\0\x80\x3f\0\0\0\x40"
    assert (versions.shape, freqs.shape) == ((0,), (0,))
    assert offsets.key == "emb-partition_offset"
    assert offsets.data == b"\0\0\0\0" * 4 + b"\1\0\0\0" * 997
    assert [e.key for e in tfra("a_b", [{1: [0.0]}])] == [
        "a_b_mht_1of1-keys",
        "a_b_mht_1of1-values",
    ]


def test_partitions_and_increments_are_one_table(tmp_path):
    url = write(
        tmp_path,
        deeprec("emb/part_0", rows_of([12, 88])),
        deeprec("emb/part_1", rows_of([5, 31])),
        deeprec("emb/part_0/Adagrad", rows_of([88], 0.5)),
        deeprec("emb/part_1/Adagrad", rows_of([31], 0.5)),
        increment("emb/part_1", {5: [50.0, 51.0], 70_001: [1.0, 2.0]}),
    )
    with tws.load_checkpoint(url) as checkpoint:
        table = checkpoint.tables()["emb"]
        assert table.parts == 3
        assert list(table.slots) == ["Adagrad"]
        assert sorted(table.keys.listed.ids.tolist()) == [5, 12, 31, 88, 70_001]
        assert checkpoint.get_tensor("emb").shape == (6, 2)
    model, optimizer = model_of(len(NEW))
    start(url, optimizer, model)
    expected = [[1.0, 2.0], [50.0, 51.0], [0.0, 0.0], [12.0, -12.0], [31.0, -31.0]]
    assert model["emb"].weight.tolist() == expected
    found = optimizer.state[model["emb"].weight]["sum"]
    assert found[4].tolist() == [31.5, -31.5]
    assert torch.equal(found[:4], torch.full((4, 2), 0.1))


def test_a_table_may_be_called_as_what_came_since_is(tmp_path):
    name = "sparse_incr_emb"
    url = write(tmp_path, deeprec(name, rows_of([5, 12])), increment(name, {5: [50.0, 51.0]}))
    with tws.load_checkpoint(url) as checkpoint:
        assert sorted(checkpoint.tables()[name].keys.listed.ids.tolist()) == [5, 12]


def test_filters_take_the_columns_of_the_table(tmp_path):
    freqs, versions = {12: 3, 5: 9, 31: 1}, {12: 100, 5: 50, 31: 200}
    url = write(tmp_path, deeprec("emb", rows_of(freqs), freqs=freqs, versions=versions))
    for info, left in (
        ({"min_frequency": 3}, {12, 5}),
        ({"since_version": 100}, {12, 31}),
        ({"where": lambda columns: columns["key"] > 5}, {12, 31}),
        ({"where": lambda c: c["frequency"] > 1, "since_version": 60}, {12}),
    ):
        model, _ = start(url, **info)
        taken = {i for i, row in zip(NEW, model["emb"].weight.tolist(), strict=True) if any(row)}
        assert taken == left
    bare = write(tmp_path, deeprec("emb", rows_of(freqs)))
    with pytest.raises(tws.PlanError, match="min_frequency asks for the frequency of ids"):
        start(bare, min_frequency=1)
    with pytest.raises(tws.PlanError, match=r"where must return a bool tensor of \[3\]"):
        start(bare, where=lambda columns: columns["key"])


def test_a_table_of_tfra_is_read_from_all_its_parts(tmp_path):
    slot = "emb-parameter_DynamicEmbedding_keras_adam_lazy_build-shadow_m"
    url = write(
        tmp_path,
        tfra("emb", [rows_of([12, 88]), rows_of([5])]),
        tfra(slot, [rows_of([5], 0.5), rows_of([12], 0.5)]),
    )
    model, _ = start(url)
    assert model["emb"].weight[1].tolist() == [5.0, -5.0]
    assert model["emb"].weight[3].tolist() == [12.0, -12.0]
    with tws.load_checkpoint(url) as checkpoint:
        table = checkpoint.tables()["emb"]
        (of_slot,) = table.slots.values()
        assert of_slot.values == slot
        assert of_slot.keys.rows([12, 5]).tolist() == [1, 0]
    model, optimizer = model_of(len(NEW))
    names = {"emb.weight": "emb", "emb.weight/sum": slot}
    settings = tws.WarmStartSettings(
        url, [".*weight$", ".*/sum"], {"emb.weight": tws.VocabInfo(NEW)}, names
    )
    tws.warm_start(model, settings, optimizer=optimizer)
    found = optimizer.state[model["emb"].weight]["sum"].tolist()
    assert found[1] == [5.5, -5.5]
    assert found[3] == [12.5, -12.5]
    assert found[4] == [pytest.approx(0.1)] * 2
    gone = tfra("emb", [rows_of([1]), rows_of([2]), rows_of([3])])
    with pytest.raises(tws.CorruptCheckpointError, match="part 1 of 3 is missing"):
        start(write(tmp_path, gone[:2], gone[4:]))


def test_a_table_in_an_object_graph_is_called_by_its_path(tmp_path):
    path = "model/emb/.ATTRIBUTES/table"
    ids, values = ints(f"{path}-keys", [5, 12]), floats(f"{path}-values", [[1, 2], [3, 4]])
    url = write(tmp_path, [ids, values])
    model, _ = model_of(len(NEW))
    names = {"emb.weight": "model/emb"}
    settings = tws.WarmStartSettings(url, ".*", {"emb.weight": tws.VocabInfo(NEW)}, names)
    tws.warm_start(model, settings)
    assert model["emb"].weight[1].tolist() == [1.0, 2.0]


def test_rows_of_a_table_are_never_taken_by_position(tmp_path):
    url = write(tmp_path, deeprec("emb", rows_of([12, 5, 31])))
    model, _ = model_of(3)
    for key in ("emb", "emb-values"):
        with pytest.raises(tws.PlanError, match="rows are those of the ids that it keeps") as told:
            tws.warm_start(model, tws.WarmStartSettings(url, ".*", None, {"emb.weight": key}))
        assert told.value.problems[0].code == "table-by-position"
    with pytest.raises(tws.PlanError, match="has them in another order. Leave old_vocab out"):
        start(url, old_vocab=[12, 5, 31])
    start(url, old_vocab=[5, 12, 31])  # as they lie: by the remainder


def test_hostile_tables_are_refused(tmp_path):
    def but(entries, key, **lies):
        return [ints(e.key, **lies) if e.key == key else e for e in entries]

    whole = deeprec("emb", rows_of([12, 5, 31]), freqs={12: 1, 5: 1, 31: 1})
    cases = {
        r"key column is \[2\] for 3 rows": but(whole, "emb-keys", values=[5, 12]),
        "key 5 is there twice": but(whole[:4], "emb-keys", values=[5, 12, 5]),
        "another sub-part": but(whole, "emb-keys", values=[5, 12, 32]),
        "sub-parts do not make up": but(
            whole, "emb-partition_offset", values=[0] * 1000 + [4], dtype="int32"
        ),
    }
    for said, entries in cases.items():
        with pytest.raises(tws.WarmStartError, match=said):
            start(write(tmp_path, entries))
    long = but(whole, "emb-freqs", values=[1, 2])
    with pytest.raises(tws.WarmStartError, match=r"frequency column is \[2\] for 3 rows"):
        start(write(tmp_path, long), min_frequency=1)
    with pytest.raises(tws.CorruptCheckpointError, match="part 0 of 2 is missing"):
        start(write(tmp_path, deeprec("emb/part_1", rows_of([5]))))
    wide = [*deeprec("emb/part_0", rows_of([5])), *deeprec("emb/part_1", {7: [1.0]}, dim=1)]
    with pytest.raises(tws.CorruptCheckpointError, match="several widths"):
        start(write(tmp_path, wide))


def test_rows_on_an_ssd_are_refused_by_name(tmp_path):
    url = write(tmp_path, deeprec("emb", rows_of([5, 12])))
    write_bundle(tmp_path / "m-emb-ssd_record", [ints("files", [1])])
    with pytest.raises(tws.WarmStartError, match="m-emb-ssd_record, which is how DeepRec keeps"):
        start(url)


def test_many_ids_of_either_sign(tmp_path):
    draw = random.Random(1)
    ids = [draw.randrange(-(1 << 62), 1 << 62) for _ in range(500)]
    weights = rows_of(range(3000, 3500))
    weights |= {i: [1.0, 2.0] for i in ids if i >= 0}
    url = write(tmp_path, deeprec("emb", weights))
    with tws.load_checkpoint(url) as checkpoint:
        table = checkpoint.tables()["emb"]
        rows = table.keys.rows(list(weights))
        values = checkpoint.get_tensor("emb", rows)
        assert torch.equal(values, torch.tensor(list(weights.values())))


def test_the_ids_of_a_table_are_told_and_go_beside_the_file(tmp_path):
    rows = rows_of([7, 3, 5])
    with tws.load_checkpoint(write(tmp_path, deeprec("emb", rows))) as checkpoint:
        (table,) = checkpoint.tables().values()
        done = tws.convert(checkpoint, new := tmp_path / "new.safetensors")
        assert "save_vocabularies" in done.left_out["the ids of emb"]
        tws.save_vocabularies(new, {table.values: table.keys})
    model = nn.Embedding(3, 2)
    info = tws.VocabInfo(torch.tensor([5, 7, 3]))
    rules = {"weight": table.values}
    settings = tws.WarmStartSettings(
        new, ".*", var_name_to_vocab_info={"weight": info}, var_name_to_prev_var_name=rules
    )
    tws.warm_start(model, settings)
    assert model.weight.tolist() == [rows[5], rows[7], rows[3]]
