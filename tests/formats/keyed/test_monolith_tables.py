"""Monolith's tables in records: right rows and right slots, or refused."""

from __future__ import annotations

import contextlib
import random
import struct

import monolith_writer as mw
import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.formats.tensorflow.monolith.record_files import records_in, unpacked

NEW = [7, 4, 1000, 9]


def adagrad(id, updated=100, **more):
    return mw.entry_dump(id, [id, -id], [("adagrad", {1: [id + 0.5, 1.0]})], updated, **more)


def start(url, key="t", slot="t/adagrad/norm", **info):
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.1)
    settings = tws.WarmStartSettings(
        url,
        [".*weight$", ".*/sum"] if slot else ".*",
        {"emb.weight": tws.VocabInfo(NEW, **info)},
        {"emb.weight": key, **({"emb.weight/sum": slot} if slot else {})},
    )
    tws.warm_start(model, settings, optimizer=optimizer if slot else None)
    sums = optimizer.state[model["emb"].weight]["sum"].tolist()
    return model["emb"].weight.tolist(), [[round(n, 5) for n in row] for row in sums]


def test_the_bytes_are_those_of_the_sources():
    # docs of Monolith ("Parse Hashtable Ckpt") print this very entry; embedding_hash_table.proto:
    # sfixed64 id = 1, repeated float num = 2, opt = 3 { dump = 1 { sgd = 2 {} } }, ts = 4.
    entry = mw.entry_dump(1, [0.0, 1.0, 2.0, 3.0], [("sgd", {})], 0)
    assert entry.hex(" ") == (
        "09 01 00 00 00 00 00 00 00 "
        "15 00 00 00 00 15 00 00 80 3f 15 00 00 00 40 15 00 00 40 40 "
        "1a 04 0a 02 12 00 20 00"
    )
    # What TensorFlow's own RecordWriter makes of b"abc": length, masked crc, data, masked crc.
    assert mw.record(b"abc").hex(" ") == (
        "03 00 00 00 00 00 00 00 b0 99 49 0e 61 62 63 6e 57 f1 21"
    )
    # Its compressed files begin with the length of a block, big-endian.
    assert mw.snappy_block(b"abc") == b"\0\0\0\5" + b"\3" + b"\x08abc"


def test_what_tensorflow_compresses_is_unpacked(tmp_path):
    # RecordWriter(..., "SNAPPY") of TensorFlow 2: the records b"abc", b"" and 300 of b"x".
    made = bytes.fromhex(
        "0000003edf02040300090128b099490e6162636e57f12109112c000029039807d8ea82a22c010912"
        "10f2fe5b9d78fe0100fe0100fe0100fe0100aa01000ccd829421"
    )
    (tmp_path / "x-00000-of-00001").write_bytes(made)
    with pytest.raises(tws.WarmStartError):  # records, but of no ids
        tws.load_checkpoint(str(tmp_path))
    found = records_in(unpacked(np.frombuffer(made, np.uint8)), verify=True)
    assert found.lengths.tolist() == [3, 0, 300]


@pytest.mark.parametrize("shards", [1, 3])
def test_rows_and_slots_of_all_shards(tmp_path, shards):
    url = mw.table(tmp_path / "a", "t", [adagrad(i) for i in (4, 30, 9, 7)], shards)
    rows, sums = start(url)
    assert rows == [[7, -7], [4, -4], [0, 0], [9, -9]]
    assert sums == [[7.5, 1], [4.5, 1], [0.1, 0.1], [9.5, 1]]
    with tws.load_checkpoint(url) as checkpoint:
        table = checkpoint.tables()["t"]
        assert (table.shape, table.parts, list(table.slots)) == ((4, 2), shards, ["adagrad/norm"])
        assert sorted(table.keys.listed.ids.tolist()) == [4, 7, 9, 30]
        assert checkpoint.get_tensor("t", torch.tensor([3, 0])).shape == (2, 2)
        some = torch.tensor([3, 1])
        assert torch.equal(checkpoint.get_tensor("t")[some], checkpoint.get_tensor("t", some))
    one = start(f"{url}/t-00000-of-{shards:05d}", slot=None)
    assert one[0] == rows


def test_slots_have_the_ids_of_the_records_that_have_them(tmp_path):
    bare = [mw.entry_dump(4, [4, -4]), mw.entry_dump(9, [9, -9], updated=5)]
    url = mw.table(tmp_path, "t", [adagrad(30), *bare, adagrad(7)])
    rows, sums = start(url)
    assert rows == [[7, -7], [4, -4], [0, 0], [9, -9]]
    assert sums == [[7.5, 1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1]]


def test_segments_lie_side_by_side(tmp_path):
    two = [("adagrad", {1: [1.5]}), ("adagrad", {1: [2.5]})]
    mw.table(tmp_path, "t", [mw.entry_dump(7, [1, 2], two)])
    mixed = [("ftrl", {1: [0.5], 2: [0.25]}), ("adam", {1: [3], 2: [4], 3: [0.9], 4: [0.99]})]
    mw.table(tmp_path, "u", [mw.entry_dump(7, [1, 2], mixed)])
    mw.table(tmp_path, "v", [mw.entry_dump(7, [1, 2], [("group_adagrad", {1: [6.0]})])])
    with tws.load_checkpoint(str(tmp_path)) as checkpoint:
        assert checkpoint.get_tensor("t/adagrad/norm").tolist() == [[1.5, 2.5]]
        assert checkpoint.get_tensor("u/0.ftrl/zero").tolist() == [[0.5]]
        assert checkpoint.get_tensor("u/1.adam/v").tolist() == [[4.0]]
        assert checkpoint.get_tensor("v/group_adagrad/grad_square_sum").tolist() == [[6.0]]


def test_several_tables_in_a_file_and_on_servers(tmp_path):
    both = {"user": [adagrad(i) for i in (4, 8)], "item": [adagrad(i) for i in (8, 90)]}
    odd = {"user": [adagrad(i) for i in (7, 9)], "item": [adagrad(3)]}
    one = mw.tables(tmp_path / "one", "MonolithMultiHashTable_", both, shards=2)
    assert start(one, "user", "user/adagrad/norm")[0] == [[0, 0], [4, -4], [0, 0], [0, 0]]
    mw.tables(tmp_path / "two", "MonolithMultiHashTable_0", both, shards=2)
    two = mw.tables(tmp_path / "two", "MonolithMultiHashTable_1", odd)
    rows, sums = start(two, "user", "user/adagrad/norm")
    assert rows == [[7, -7], [4, -4], [0, 0], [9, -9]]
    assert sums[3] == [9.5, 1]
    mw.tables(tmp_path / "bad", "MonolithMultiHashTable_0", both)
    bad = mw.tables(tmp_path / "bad", "MonolithMultiHashTable_1", both)
    with pytest.raises(tws.WarmStartError, match="not that of its remainder by 2"):
        start(bad, "user", None)


def test_tables_of_servers_are_one_table_if_their_ids_say_so(tmp_path):
    mw.table(tmp_path, "x_0", [adagrad(4)])
    url = mw.table(tmp_path, "x_1", [adagrad(7), adagrad(9)])
    assert start(url, "x", "x/adagrad/norm")[0] == [[7, -7], [4, -4], [0, 0], [9, -9]]
    assert start(url, "x_1", None)[0] == [[7, -7], [0, 0], [0, 0], [9, -9]]
    mw.table(tmp_path, "x_0", [adagrad(4), adagrad(5)])
    with pytest.raises(tws.WarmStartError, match="key 5 is in x_0-00000-of-00001.*2 tables, not"):
        start(url, "x", None)
    assert start(url, "x_0", None)[0] == [[0, 0], [4, -4], [0, 0], [0, 0]]


def test_when_an_id_was_updated_is_its_version(tmp_path):
    now = 1_700_000_000
    url = mw.table(tmp_path, "t", [adagrad(7, now), adagrad(4, None), adagrad(9, now - 86_400)])
    assert start(url, since_version=now)[0] == [[7, -7], [0, 0], [0, 0], [0, 0]]
    with tws.load_checkpoint(url) as checkpoint:
        table = checkpoint.tables()["t"]
        assert table.versions[table.keys.numbers_at(table.keys.rows([4, 7]))].tolist() == [0, now]
        assert table.frequencies is None


def test_what_a_crash_left_and_filters_are_no_tables(tmp_path):
    url = mw.table(tmp_path, "t", [adagrad(7)])
    mw.table(tmp_path, "t-tmp-123", [adagrad(9)])
    (tmp_path / "t-00000-of-00001-tmp-5").write_bytes(b"half")
    # A hash filter's HashFilterSplitMetaDump: failure_count = 1, total_size = 2.
    mw.table(tmp_path, "filter", [b"\x08\x00\x10\x64"])
    with tws.load_checkpoint(url) as checkpoint:
        assert list(checkpoint.tables()) == ["t"]
        assert checkpoint.besides() == {
            "filter-00000-of-00001": "records of something else than ids and rows"
        }


def test_many_records_of_several_lengths(tmp_path):
    draw = random.Random(3)
    ids = [draw.randrange(-(1 << 62), 1 << 62) for _ in range(700)]
    times = [draw.choice([None, 0, 200, 1 << 20, 1 << 33]) for _ in ids]
    numbered = enumerate(zip(ids, times, strict=True))
    entries = [mw.entry_dump(i, [k, -k], (), updated) for k, (i, updated) in numbered]
    url = mw.table(tmp_path, "t", entries)
    with tws.load_checkpoint(url) as checkpoint:
        table = checkpoint.tables()["t"]
        rows = table.keys.rows(ids)
        expected = [[float(k), float(-k)] for k in range(700)]
        assert checkpoint.get_tensor("t", rows).tolist() == expected
        assert table.versions[rows].tolist() == [t or 0 for t in times]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


WHOLE = mw.record(adagrad(7)) + mw.record(adagrad(9))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (WHOLE[:-1], "claims|are left"),
        (WHOLE + b"\0" * 5, "within the head of a record"),
        (flipped(WHOLE, len(WHOLE) - 20), "record 1 fails its checksum"),
        (flipped(WHOLE, len(WHOLE) // 2 + 8), "record 1 fails its checksum"),
        (WHOLE + mw.record(adagrad(7)), "key 7 is there twice"),
        (WHOLE + mw.record(mw.entry_dump(3, [1.0])), r"its rows have \[1, 2\] numbers"),
        (WHOLE + mw.record(b"\x15\0\0\0\0"), "record 2: it has no id"),
        (WHOLE + mw.record(adagrad(3)[:-3]), "record 2: .* past"),
        (WHOLE + mw.record(b"\x08\x07"), "record 2: field 1 is there twice, or of wire type 0"),
        (WHOLE + mw.record(b"\x09" + struct.pack("<q", 3) + b"\x1a\x02\x2a\0"), "not known"),
        (mw.record(b"\x09" + struct.pack("<q", 3)), r"its rows have \[0\] numbers"),
    ],
)
def test_hostile_records_are_refused(tmp_path, data, said):
    (tmp_path / "t-00000-of-00001").write_bytes(data)
    with pytest.raises(tws.WarmStartError, match=said):
        start(str(tmp_path), slot=None)


def test_hostile_folders_are_refused(tmp_path):
    for number, change in enumerate(
        (
            ("t-00001-of-00002", None, "file 1 of 2 is missing"),
            ("t-00000-of-00003", b"", "of several saves"),
            ("t-00002-of-00002", b"", "files beyond the 2"),
        )
    ):
        name, data, said = change
        folder = tmp_path / str(number)
        mw.table(folder, "t", [adagrad(7), adagrad(9)], 2)
        (folder / name).unlink() if data is None else (folder / name).write_bytes(data)
        with pytest.raises(tws.CorruptCheckpointError, match=said):
            start(str(folder), slot=None)
    both = {"user": [adagrad(4)], "item": [adagrad(8)]}
    for number, (name, data, said) in enumerate(
        (
            ("m.meta-00000-of-00001", mw.record(b"\x0a\x01u\x10\x09"), "9 records are counted"),
            ("m.meta-00000-of-00001", mw.record(b"\x10\x09"), "no table's name"),
            ("m.meta-00000-of-00001", mw.record(b"\x0a\x01u\x10" + mw.varint(-1)), "are counted"),
            ("m-00000-of-00001", b"\0\0\0\x10" + b"\xff\xff\xff\x7f" + b"\0" * 12, "claim"),
            ("m-00000-of-00001", b"\0\0\1\0\5", "compressed block claims"),
        )
    ):
        folder = tmp_path / f"m{number}"
        mw.table(folder, "t", [adagrad(7)])
        mw.tables(folder, "m", both)
        (folder / name).write_bytes(data)
        with pytest.raises(tws.CorruptCheckpointError, match=said):
            start(str(folder), "t", slot=None)


def test_every_cut_and_flip_is_our_error_or_the_same(tmp_path):
    url = mw.tables(tmp_path, "m", {"t": [adagrad(7), adagrad(9)]})
    file = tmp_path / "m-00000-of-00001"
    whole, draw = file.read_bytes(), random.Random(5)
    expected = start(url)
    for _ in range(60):
        raw = bytearray(whole)
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        file.write_bytes(raw[: draw.randint(1, len(raw))] if draw.random() < 0.4 else raw)
        with contextlib.suppress(tws.WarmStartError):
            assert start(url) == expected
