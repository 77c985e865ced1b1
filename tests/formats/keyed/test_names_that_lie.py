"""Numbers in names and lengths of columns that are no rows: refused, with an error of ours."""

from __future__ import annotations

import struct
import sys

import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from embedding_variable_writer import floats, ints
from torch import nn

import torch_warmstart as tws


def dynamicemb(folder, world=2, scores=8, ids=(4, 7, 9)):
    folder.mkdir()
    for rank in range(world):
        mine = [i for i in ids if i % world == rank]
        end = f"rank_{rank}.world_size_{world}"
        raw = {
            "keys": struct.pack(f"<{len(mine)}q", *mine),
            "values": struct.pack(f"<{2 * len(mine)}f", *(n for i in mine for n in (i, -i))),
            "scores": b"\1" * (scores * len(mine)),
        }
        for column, content in raw.items():
            (folder / f"t_emb_{column}.{end}").write_bytes(content)
    return str(folder)


def started(url, key="t", new=(7, 4, 9), entry=None, optimizer=None, rename=None):
    model = nn.ModuleDict({"emb": nn.Embedding(len(new), 2)})
    made = optimizer and optimizer(model.parameters())
    names = {"emb.weight": key, **(rename or {})}
    infos = {"emb.weight": tws.VocabInfo(list(new))}
    settings = tws.WarmStartSettings(url, [".*"], infos, names, entry=entry)
    tws.warm_start(model, settings, optimizer=made)
    rows = model["emb"].weight.tolist()
    return (rows, made.state[model["emb"].weight]["sum"].tolist()) if made else rows


@pytest.mark.parametrize("words", [1, 2])
def test_scores_of_one_word_or_several_are_no_lie(tmp_path, words):
    assert started(dynamicemb(tmp_path / "d", scores=8 * words)) == [[7, -7], [4, -4], [9, -9]]


@pytest.mark.parametrize("change", [lambda raw: raw[:-3], lambda raw: raw[:-8], lambda raw: b""])
def test_scores_that_lie_are_refused(tmp_path, change):
    url = dynamicemb(tmp_path / "d")
    path = tmp_path / "d" / "t_emb_scores.rank_1.world_size_2"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(tws.CorruptCheckpointError, match="its scores are .* no words for each"):
        started(url)


def test_files_of_a_rank_beyond_the_world_are_refused(tmp_path):
    url = dynamicemb(tmp_path / "d")
    for column in ("keys", "values", "scores"):
        source = tmp_path / "d" / f"t_emb_{column}.rank_1.world_size_2"
        source.with_name(f"t_emb_{column}.rank_2.world_size_2").write_bytes(source.read_bytes())
    with pytest.raises(tws.CorruptCheckpointError, match="files of rank 2 of 2, from 0"):
        started(url)


def test_a_rank_is_spelt_in_one_way(tmp_path):
    """`rank_01` beside `rank_1` would be the same rank once more."""
    url = dynamicemb(tmp_path / "d")
    for column in ("keys", "values", "scores"):
        path = tmp_path / "d" / f"t_emb_{column}.rank_1.world_size_2"
        path.rename(path.with_name(f"t_emb_{column}.rank_01.world_size_2"))
    with pytest.raises(tws.CorruptCheckpointError, match="of rank 1 are missing"):
        started(url)


@pytest.mark.parametrize("name", ["emb_mht_1of{}", "emb_mht_{}of1", "emb/part_{}"])
@pytest.mark.parametrize("digits", [10, 5000, "\u0660"])
def test_numbers_that_no_part_has_are_no_parts(tmp_path, name, digits):
    """Python makes no number of more than 4300 digits, and one of other scripts' digits."""
    stem = name.format("9" * digits if isinstance(digits, int) else digits)
    entries = [ints(f"{stem}-keys", [4]), floats(f"{stem}-values", [[1, 2]])]
    write_bundle(tmp_path / "m", entries)
    with tws.load_checkpoint(str(tmp_path / "m")) as checkpoint:
        assert list(checkpoint.tables()) == [stem]
        assert sys.getsizeof(repr(checkpoint)) < 1000


def texts(key, values):
    return BundleEntry(key, DType.STRING, (len(values),), [value.encode() for value in values])


def test_text_keys_of_tfra_in_a_bundle(tmp_path):
    """cuckoo_hashtable_ops.py: keys are int64, int32 or string; a slot has keys of its own."""
    entries = [
        texts("emb-acc_mht_1of1-keys", ["c", "a"]),
        floats("emb-acc_mht_1of1-values", [[30, 30], [10, 10]]),
        texts("emb_mht_1of2-keys", ["a", "b"]),
        floats("emb_mht_1of2-values", [[1, 1], [2, 2]]),
        texts("emb_mht_2of2-keys", ["c"]),
        floats("emb_mht_2of2-values", [[3, 3]]),
    ]
    write_bundle(tmp_path / "m", entries)

    def adagrad(parameters):
        return torch.optim.Adagrad(parameters, initial_accumulator_value=0.25)

    rows, sums = started(
        str(tmp_path / "m"),
        "emb",
        ("c", "b", "a", "z"),
        optimizer=adagrad,
        rename={"emb.weight/sum": "emb-acc"},
    )
    assert rows == [[3, 3], [2, 2], [1, 1], [0, 0]]
    assert sums == [[30, 30], [0.25, 0.25], [10, 10], [0.25, 0.25]]


@pytest.mark.parametrize("path", ["emb_mht_1of1", "emb/.ATTRIBUTES/table"])
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["a", "a"], "is there twice"),
        (["a"], "keys are 1 for 2 rows"),
        (["a", "b", "c"], "keys are 3 for 2 rows"),
    ],
)
def test_text_keys_that_lie_are_refused(tmp_path, path, keys, said):
    entries = [texts(f"{path}-keys", keys), floats(f"{path}-values", [[1, 1], [2, 2]])]
    write_bundle(tmp_path / "m", entries)
    with pytest.raises(tws.CorruptCheckpointError, match=said):
        started(str(tmp_path / "m"), "emb", ("a",))


def test_text_keys_of_one_part_and_ids_of_another_are_refused(tmp_path):
    entries = [
        texts("emb_mht_1of2-keys", ["a"]),
        floats("emb_mht_1of2-values", [[1, 1]]),
        ints("emb_mht_2of2-keys", [4]),
        floats("emb_mht_2of2-values", [[2, 2]]),
    ]
    write_bundle(tmp_path / "m", entries)
    with pytest.raises(tws.CorruptCheckpointError, match="keys of a part are text, those of an"):
        started(str(tmp_path / "m"), "emb", ("a",))
