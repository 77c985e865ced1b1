"""Days on which nothing was seen, blocks in which nobody was, ids that the old ones do not tell."""

from __future__ import annotations

import pandas
import pyarrow
import pytest
from pyarrow import parquet

import torch_warmstart as tws

DAY = 20_001
BLOCK = 1 << 18  # rows of a file that are counted at a time
NOTHING = pyarrow.table({"entry": pyarrow.array([], "str"), "count": pyarrow.array([], "int64")})
NOBODY = pyarrow.table({"entry": pyarrow.array([None], "str"), "count": [3]})


@pytest.mark.parametrize(
    "counts",
    [NOTHING, NOBODY, NOTHING.to_pandas(), pandas.DataFrame({"entry": [], "count": []})],
    ids=["nothing", "nobody", "of-pandas", "of-no-type"],
)
def test_a_day_without_entries_is_a_day(counts, tmp_path):
    """As an empty mapping, an empty pair and an empty file have been."""
    monday = tws.update_vocabulary(["a", "b"], {"a": 2}, today=DAY)
    tuesday = tws.update_vocabulary(monday, counts, today=DAY + 1)
    assert tuesday.usage.counts.tolist() == [2, 0]
    if isinstance(counts, pyarrow.Table):
        parquet.write_table(counts, tmp_path / "counts.parquet")
        tuesday = tws.update_vocabulary(monday, tmp_path / "counts.parquet", today=DAY + 1)
        assert tuesday.usage.counts.tolist() == [2, 0]


def test_rows_without_an_entry_may_fill_a_block_of_a_file(tmp_path):
    path = tmp_path / "counts.parquet"
    entries = pyarrow.array(["a"] * BLOCK + [None])
    parquet.write_table(pyarrow.table({"entry": entries, "count": [1] * (BLOCK + 1)}), path)
    assert tws.update_vocabulary(["a"], path, today=DAY).usage.counts.tolist() == [BLOCK]


def test_a_vocabulary_of_no_entry_needs_one_all_the_same():
    with pytest.raises(tws.VocabularyError, match="a column of nulls"):
        tws.Vocabulary.load(NOBODY, column="entry")
    with pytest.raises(tws.VocabularyError, match="is empty"):
        tws.Vocabulary.load(NOTHING, column="entry")


@pytest.mark.parametrize("ending", ["voc", "parquet", "tsv"])
def test_of_a_vocabulary_that_nobody_is_left_in_the_counts_are_known(ending, tmp_path):
    path = tmp_path / f"tuesday.{ending}"
    monday = tws.update_vocabulary(["a"], {}, today=DAY)
    tws.update_vocabulary(monday, {}, expire_after=0, today=DAY + 1).save(path)
    tuesday = tws.Vocabulary.load(path)
    assert len(tuesday.usage) == 0
    assert list(tuesday.entries) == [None]
    assert tws.update_vocabulary(monday, path, today=DAY + 1).usage.counts.tolist() == [0]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_ids_without_a_sign_are_read_beside_ids_that_need_none(suffix, tmp_path):
    path = tmp_path / f"counts.{suffix}"
    between = "," if suffix == "csv" else "\t"
    lines = ["entry,count", *["5,1"] * BLOCK, f"{2**64 - 1},2", "5,1"]
    path.write_text("\n".join(lines).replace(",", between) + "\n")
    counted = tws.update_vocabulary([1, 2], path, today=DAY)
    assert list(counted.entries) == [1, 2, 5, 2**64 - 1]
    assert counted.usage.counts.tolist() == [0, 0, BLOCK + 1, 2]


@pytest.mark.parametrize("entry", ["x", str(2**64)])
def test_what_is_no_id_is_told_as_before(entry, tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text(f"entry,count\n5,1\n{entry},2\n")
    with pytest.raises(tws.VocabularyError, match="are to be integers.*invalid value"):
        tws.update_vocabulary([1, 2], path, today=DAY)
