"""An update goes through the vocabulary block by block: as one block makes it, and as a dict."""

from __future__ import annotations

import random

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
