"""NVTabular's categories in both layouts: right rows, or refused.

The files are written by pandas, with the calls that nvtabular/ops/categorify.py makes.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ITEMS = ["paris", "rome", "oslo"]


def meta_of(folder, column, oov, unique, **lies):
    """categorify.py of 23.8, line 811: `_save_encodings`, the encoding metadata."""
    meta = {
        "kind": ["pad", "null", "oov", "unique"],
        "offset": [0, 1, 2, 2 + oov],
        "num_indices": [1, 1, oov, unique],
        "num_observed": [0, 0, 0, 9],
        **lies,
    }
    pandas.DataFrame(meta).to_parquet(folder / f"meta.{column}.parquet")


def save_encodings(folder, column, entries, oov=1, meta=True, start=None, sizes=None):
    """The same, lines 795 and 806: a RangeIndex from behind the OOV rows, kept in the schema."""
    folder.mkdir(exist_ok=True)
    sizes = range(len(entries), 0, -1) if sizes is None else sizes
    frame = pandas.DataFrame({column: entries, f"{column}_size": sizes})
    start = 2 + oov if start is None else start
    frame.index = pandas.RangeIndex(start, start + len(entries))
    path = folder / f"unique.{column}.parquet"
    frame.to_parquet(path, compression=None)
    if meta:
        meta_of(folder, column, oov, len(entries))
    return str(path)


def write_uniques(folder, column, entries, **options):
    """categorify.py of 1.8.1, lines 1158 and 1058: null first, no index."""
    folder.mkdir(exist_ok=True)
    frame = pandas.DataFrame({column: [None, *entries]})
    frame[f"{column}_size"] = [0, *range(len(entries), 0, -1)]
    path = folder / f"unique.{column}.parquet"
    frame.to_parquet(path, compression=None, **{"index": False, **options})
    return str(path)


def test_the_schema_says_what_the_readers_rely_on(tmp_path):
    said = pq.read_schema(save_encodings(tmp_path, "city", ITEMS, oov=10)).metadata[b"pandas"]
    assert json.loads(said)["index_columns"] == [
        {"kind": "range", "name": None, "start": 12, "stop": 15, "step": 1}
    ]
    said = pq.read_schema(write_uniques(tmp_path, "city", ITEMS)).metadata[b"pandas"]
    assert json.loads(said)["index_columns"] == []


@pytest.mark.parametrize("entries", [ITEMS, [7, 4, 9], [7.0, 4.0, 9.0]])
@pytest.mark.parametrize("oov", [1, 10])
def test_the_rows_before_are_for_padding_null_and_what_is_not_listed(tmp_path, entries, oov):
    path = save_encodings(tmp_path, "city", entries, oov)
    for found in (
        tws.Vocabulary.load(path),
        tws.Vocabulary.load(path, column="city"),
        tws.Vocabulary.load(tmp_path),
        tws.Vocabulary.load(tmp_path, key="city"),
    ):
        assert len(found) == 2 + oov + 3
        assert found.rows(ITEMS if entries is ITEMS else [7, 4, 9]).tolist() == [
            2 + oov,
            3 + oov,
            4 + oov,
        ]
        assert dict(found.special) == {
            "mask": range(1),
            "null": range(1, 2),
            "oov": range(2, 2 + oov),
        }
        assert found.usage.counts.tolist() == [3, 2, 1]


def test_before_its_first_row_is_for_null_and_what_is_not_listed(tmp_path):
    for path in (
        write_uniques(tmp_path, "city", ITEMS),
        write_uniques(tmp_path, "city", ITEMS, index=None),  # `process_vocabs`, line 396
    ):
        found = tws.Vocabulary.load(path)
        assert (len(found), dict(found.special)) == (4, {"oov": range(1)})
        assert found.rows(ITEMS).tolist() == [1, 2, 3]
        assert found.usage.counts.tolist() == [3, 2, 1]
    assert tws.Vocabulary.load(write_uniques(tmp_path, "id", [7, 4])).rows([7, 4]).tolist() == [
        1,
        2,
    ]


def test_a_model_moves_from_one_fit_to_the_next(tmp_path):
    old = write_uniques(tmp_path / "old", "city", ITEMS)
    new = save_encodings(tmp_path / "new", "city", ["oslo", "lima", "paris"])
    state = {"city.weight": torch.arange(8.0).view(4, 2)}
    model = nn.ModuleDict({"city": nn.Embedding(6, 2)})
    info = tws.VocabInfo(new, old_vocab=old)
    report = tws.warm_start(model, tws.WarmStartSettings(state, ".*", {"city.weight": info}))
    assert model["city"].weight.tolist() == [[0, 0], [0, 0], [0, 1], [6, 7], [0, 0], [2, 3]]
    assert (report["city.weight"].rows.copied, report["city.weight"].rows.oov_copied) == (2, 1)
    again = save_encodings(tmp_path / "again", "city", ["paris", "bonn"])
    state = {"city.weight": torch.arange(12.0).view(6, 2)}
    model = nn.ModuleDict({"city": nn.Embedding(5, 2)})
    info = tws.VocabInfo(again, old_vocab=new)
    tws.warm_start(model, tws.WarmStartSettings(state, ".*", {"city.weight": info}))
    assert model["city"].weight.tolist() == [[0, 1], [2, 3], [4, 5], [10, 11], [0, 0]]


def test_a_night_keeps_the_rows_of_categories(tmp_path):
    old = tws.Vocabulary.load(save_encodings(tmp_path, "city", ITEMS, oov=2))
    counts = tmp_path / "today"
    path = save_encodings(counts, "city", ["oslo", "lima"], oov=2)
    new = tws.update_vocabulary(old, tws.Vocabulary.load(path), today=20000, max_size=8)
    assert new.rows(["paris", "rome", "oslo", "lima"]).tolist() == [4, 5, 6, 7]
    assert new.special == old.special
    assert tws.update_vocabulary(old, path, today=20000).fingerprint == new.fingerprint


def test_parts_in_a_folder_are_one_vocabulary(tmp_path):
    folder = tmp_path / "unique.city.parquet"
    save_encodings(tmp_path / "a", "city", ITEMS, meta=False)
    save_encodings(tmp_path / "b", "city", ["lima", "bonn"], start=6, meta=False)
    folder.mkdir()
    for number, name in ((0, "a"), (10, "b")):
        made = tmp_path / name / "unique.city.parquet"
        made.rename(folder / f"part.{number}.parquet")
    meta_of(tmp_path, "city", 1, 5)
    for found in (tws.Vocabulary.load(folder), tws.Vocabulary.load(tmp_path, key="city")):
        assert found.rows([*ITEMS, "lima", "bonn"]).tolist() == [3, 4, 5, 6, 7]
        assert found.usage.counts.tolist() == [3, 2, 1, 2, 1]
    meta_of(tmp_path, "city", 1, 6)
    with pytest.raises(tws.VocabularyError, match="5 entries, but the meta file beside it says 6"):
        tws.Vocabulary.load(folder)
    (folder / "part.0.parquet").rename(folder / "part.11.parquet")
    with pytest.raises(tws.VocabularyError, match="do not follow one another"):
        tws.Vocabulary.load(folder)


def test_a_part_that_the_storage_does_not_give_is_not_called_damaged(tmp_path, monkeypatch):
    folder = tmp_path / "unique.city.parquet"
    made = save_encodings(tmp_path / "a", "city", ITEMS, meta=False)
    folder.mkdir()
    os.rename(made, folder / "part.0.parquet")

    def refuse(_, url):
        raise tws.StorageError(f"{url}: the server says 503.")

    monkeypatch.setattr("torch_warmstart.storage.Storage.read_all", refuse)
    with pytest.raises(tws.StorageError, match=r"part\.0\.parquet: the server says 503"):
        tws.Vocabulary.load(folder)


def test_a_folder_holds_the_categories_of_many_columns(tmp_path):
    for column in ("city", "user.id"):
        save_encodings(tmp_path, column, ITEMS)
    assert len(tws.Vocabulary.load(tmp_path, key="user.id")) == 6
    with pytest.raises(tws.VocabularyError, match=r"categories of 'city', 'user.id': say which"):
        tws.Vocabulary.load(tmp_path)
    with pytest.raises(tws.VocabularyError, match="no column 'cities', but .* Did you mean 'city'"):
        tws.Vocabulary.load(tmp_path, key="cities")


def test_one_table_for_several_columns_says_its_rows_alone(tmp_path):
    """`_reset_df_index` moves the index on, and leaves the meta file at 3."""
    path = save_encodings(tmp_path, "city", ITEMS, start=30)
    found = tws.Vocabulary.load(path)
    assert (found.rows(ITEMS).tolist(), dict(found.special)) == ([30, 31, 32], {})


def test_without_its_name_the_columns_and_the_index_tell(tmp_path):
    path = save_encodings(tmp_path, "city", ITEMS, meta=False)
    moved = tmp_path / "cities.parquet"
    moved.write_bytes((tmp_path / "unique.city.parquet").read_bytes())
    assert tws.Vocabulary.load(moved).rows(ITEMS).tolist() == [3, 4, 5]
    assert tws.Vocabulary.load(path, column="city_size").rows([3, 2, 1]).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"entries": ["a", "a", "b"]}, "an entry is there twice"),
        ({"entries": ["a", None, "b"]}, "more than its first entry is null"),
        ({"entries": [None, "a", "b"]}, "its rows do not begin at 0"),
        ({"entries": [None]}, "no category"),
        ({"entries": [1.5, 2.0]}, "holds fractions"),
        ({"entries": [1.0, 1e300]}, "no whole number"),
        ({"entries": np.array([1, 16_777_216], np.float32)}, "no whole number"),
        ({"start": 0}, "begin at row 0, but rows 0 to 2"),
        ({"start": 2}, "begin at row 2, but rows 0 to 2"),
        ({"start": 1 << 60}, "its index is no range of rows"),
        ({"start": -1}, "its index is no range of rows"),
        ({"oov": 10, "meta": False}, "what the rows before are for is in the meta file"),
        ({"sizes": [3, -1, 1]}, "a size of it is negative"),
        ({"sizes": [3, None, 1]}, "no whole numbers"),
    ],
)
def test_files_that_lie_are_refused(tmp_path, lie, said):
    path = save_encodings(tmp_path, "city", **{"entries": ITEMS, **lie})
    with pytest.raises(tws.VocabularyError, match=said):
        tws.Vocabulary.load(path)


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"offset": [0, 1, 2, 4]}, "rows of no use, or of several uses"),
        ({"offset": [0, 1, 1, 2], "num_indices": [1, 0, 1, 3]}, "rows of no use"),
        ({"num_indices": [1, 1, 1, 2]}, "3 entries, but the meta file beside it says 2"),
        ({"num_indices": [1, 1, 2, 3], "offset": [0, 1, 2, 4]}, "row 3, but the meta .* says 4"),
        ({"kind": ["null", "pad", "oov", "unique"]}, "does not say what rows are for"),
        ({"num_indices": [1, 1, 1, -3]}, "rows of no use"),
    ],
)
def test_meta_files_that_lie_are_refused(tmp_path, lie, said):
    path = save_encodings(tmp_path, "city", ITEMS)
    meta_of(tmp_path, "city", 1, 3, **lie)
    with pytest.raises(tws.VocabularyError, match=said):
        tws.Vocabulary.load(path)


def test_what_says_no_rows_is_refused(tmp_path):
    path = tmp_path / "unique.city.parquet"
    pandas.DataFrame({"city": ITEMS}).to_parquet(path, index=False)
    with pytest.raises(tws.VocabularyError, match="nothing says which rows are whose"):
        tws.Vocabulary.load(path)
    meta_of(tmp_path, "city", 1, 3)
    assert tws.Vocabulary.load(path).rows(ITEMS).tolist() == [3, 4, 5]
    pair = pandas.DataFrame({"city": ITEMS, "land": ITEMS, "city_land_size": [1, 2, 3]})
    pair.to_parquet(path)
    with pytest.raises(tws.VocabularyError, match="one of entries, with its sizes, is looked for"):
        tws.Vocabulary.load(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(tws.VocabularyError, match="cannot be read as parquet"):
        tws.Vocabulary.load(path)


RANGE = {"kind": "range", "start": 3, "stop": 6, "step": 1}


@pytest.mark.parametrize(
    "told",
    [
        "[]",
        '{"index_columns": [',
        '{"index_columns": [7]}',
        '{"index_columns": ["gone"]}',
        '{"index_columns": "city"}',
        *(
            json.dumps({"index_columns": [{**RANGE, **lie}]})
            for lie in (
                {"stop": 1 << 90},
                {"stop": 1 << 40},
                {"stop": 5},
                {"step": 0},
                {"step": 2, "stop": 9},
                {"start": True},
                {"start": "3"},
                {"start": None},
            )
        ),
        json.dumps({"index_columns": [RANGE, RANGE]}),
    ],
)
def test_what_pandas_says_is_not_believed(tmp_path, told):
    path = tmp_path / "unique.city.parquet"
    table = pyarrow.table({"city": ITEMS}).replace_schema_metadata({b"pandas": told})
    pq.write_table(table, path)
    with pytest.raises(tws.VocabularyError):
        tws.Vocabulary.load(path)
    (tmp_path / "unique.land.parquet").mkdir()
    with pytest.raises(tws.VocabularyError, match="no part of it is there"):
        tws.Vocabulary.load(tmp_path, key="land")


def test_a_meta_file_that_is_none_is_not_read(tmp_path):
    path = save_encodings(tmp_path, "city", ITEMS)
    (tmp_path / "meta.city.parquet").write_bytes(b"PAR1" * (1 << 19))
    with pytest.raises(tws.VocabularyError, match="2,097,152 bytes, which no such file has"):
        tws.Vocabulary.load(path)
    (tmp_path / "meta.city.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(tws.VocabularyError, match="cannot be read as parquet"):
        tws.Vocabulary.load(path)
