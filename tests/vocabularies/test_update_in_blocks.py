"""An update goes through the vocabulary block by block: as one block makes it, and as a dict."""

from __future__ import annotations

import datetime
import random

import numpy as np
import pytest
import torch

import torch_warmstart as tws
from torch_warmstart.entries import Usage
from torch_warmstart.vocabularies.lifecycle import counting, update

DAY = 20_000


def drawn(draw, is_text):
    """A vocabulary with gaps, special rows, padding behind and a usage; and today's counts."""

    def entry(number):
        return f"id{'x' * (number % 11)}{number}" if is_text else number * 7

    names = draw.sample(range(100), draw.randint(1, 40))
    rows = sorted(draw.sample(range(2, 60), len(names)))
    old = tws.Vocabulary.load({entry(n): row for n, row in zip(names, rows, strict=True)})
    size = rows[-1] + draw.choice([1, 4])
    special = {"oov": range(1), "mask": range(1, 2)}
    if draw.random() < 0.5:
        special["padding"] = range(rows[-1] + 1, size)
    count = len(names)
    usage = Usage(
        torch.tensor([draw.randint(0, 9) for _ in names]),
        torch.tensor([draw.choice([-1, DAY - 40, DAY - 3]) for _ in names], dtype=torch.int32),
        torch.full((count,), DAY - 50, dtype=torch.int32),
    )
    old = tws.Vocabulary(old.listed, size, old.at, old.first, special, usage=usage)
    counts = [(entry(draw.randrange(100)), draw.randint(0, 5)) for _ in range(draw.randint(0, 60))]
    return old, ([e for e, _ in counts], [n for _, n in counts])


def state_of(vocabulary):
    usage = vocabulary.usage
    kept = zip(
        vocabulary.entry_rows.tolist(),
        vocabulary.listed.values(slice(None)),
        usage.counts.tolist(),
        usage.last_seen.tolist(),
        usage.born.tolist(),
        strict=True,
    )
    return len(vocabulary), dict(vocabulary.special), list(kept)


def by_hand(old, counts, min_count, expire_after):
    """The rows, counts and days by a dict."""
    seen = {}
    for entry, number in zip(*counts, strict=True):
        key = entry.encode() if isinstance(entry, str) else entry
        seen[key] = seen.get(key, 0) + number
    rows = {}
    for row, entry, count, last, born in state_of(old)[2]:
        today = seen.get(entry, 0)
        day = DAY if today or last < 0 else last
        if expire_after is None or day >= DAY - expire_after:
            rows[row] = (entry, count + today, day, born)
    known = set(old.listed.values(slice(None)))
    new = [(-n, e) for e, n in seen.items() if e not in known and n >= min_count and n > 0]
    taken = {0, 1, *rows}
    free = (row for row in range(1000) if row not in taken)
    for (number, entry), row in zip(sorted(new), free, strict=False):
        rows[row] = (entry, -number, DAY, DAY)
    return [(row, *rows[row]) for row in sorted(rows)]


@pytest.mark.parametrize("is_text", [True, False])
def test_blocks_make_what_a_dict_makes(monkeypatch, is_text):
    draw = random.Random(7)
    for _ in range(60):
        old, counts = drawn(draw, is_text)
        options = {
            "min_count": draw.choice([1, 3]),
            "expire_after": draw.choice([None, 10]),
        }
        whole = state_of(tws.update_vocabulary(old, counts, today=DAY, **options))
        assert whole[2] == by_hand(old, counts, **options)
        with monkeypatch.context() as patch:
            patch.setattr(update, "_BLOCK", 3)
            patch.setattr(counting, "_BLOCK", 4)
            assert state_of(tws.update_vocabulary(old, counts, today=DAY, **options)) == whole
        _, special, rows = whole
        padding = special.get("padding", range(0))
        assert not [row for row, *_ in rows if row in padding]
        if "padding" in old.special and rows and rows[-1][0] < old.special["padding"].stop - 1:
            assert special["padding"].stop == old.special["padding"].stop


def test_what_is_given_is_not_changed():
    old, counts = drawn(random.Random(3), is_text=True)
    before = state_of(old), old.fingerprint
    tws.update_vocabulary(old, counts, today=DAY, expire_after=10)
    assert (state_of(old), old.fingerprint) == before


def test_a_bar_says_what_is_done(capsys):
    old = tws.Vocabulary.load(list(range(50)))
    tws.update_vocabulary(old, {3: 1, 99: 2}, progress=True)
    shown = capsys.readouterr().err
    assert "Counting: 2 entries" in shown
    assert "800/800 bytes" in shown
    tws.diff_vocabularies(old, [5, 6], progress=True)
    assert "Looking up" in capsys.readouterr().err


HIGH = 1 << 62


@pytest.mark.parametrize(
    ("old", "counts"),
    [
        (["a"], {"a": 2**63 - 1}),
        (["a"], {"a": (1 << 44) + 1}),
        (["a"], (["a"], np.array([2**63 + 5], np.uint64))),
        (["a"], (["a"] * (1 << 18), np.full(1 << 18, 1 << 44))),
        (["a"], (["b"] * (1 << 18), np.full(1 << 18, 1 << 44))),
    ],
)
def test_counts_that_would_overflow_are_refused(old, counts):
    with pytest.raises(tws.VocabularyError, match="which nobody has counted"):
        tws.update_vocabulary(old, counts, today=DAY)


def test_counts_of_all_days_do_not_overflow():
    listed = tws.Vocabulary.load(["a"]).listed
    days = torch.tensor([DAY], dtype=torch.int32)
    for total, fits in ((HIGH - 1, True), (HIGH, False), ((1 << 63) - 1, False)):
        old = tws.Vocabulary(listed, 1, usage=Usage(torch.tensor([total]), days, days))
        if fits:
            assert tws.update_vocabulary(old, {"a": 5}).usage.counts.tolist() == [total + 5]
        else:
            with pytest.raises(tws.VocabularyError, match="which nobody has counted"):
                tws.update_vocabulary(old, {"a": 5})


def test_days_before_the_first_are_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "v.parquet"
    tws.update_vocabulary(["a"], {"a": 1}, today=DAY).save(path)
    table = parquet.read_table(path)
    at = table.column_names.index("last_seen")
    early = pyarrow.array([datetime.date(1900, 1, 1)])
    lie = table.set_column(at, "last_seen", early).replace_schema_metadata(table.schema.metadata)
    parquet.write_table(lie, path)
    with pytest.raises(tws.VocabularyError, match="a day of it is before 1970"):
        tws.Vocabulary.load(path)
