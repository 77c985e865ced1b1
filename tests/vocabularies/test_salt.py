"""The join's hashes are salted: rows do not depend on it, and crafted entries do no harm."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import oracle
import pytest
import torch
from cpu_time import cpu_seconds_below
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.entries import as_tensor
from torch_warmstart.vocabularies import hashing
from torch_warmstart.vocabularies import join as join_module
from torch_warmstart.vocabularies.hashing import hash_entries
from torch_warmstart.vocabularies.join import join
from torch_warmstart.vocabularies.loading import read_entries as read_vocabulary


@pytest.fixture(scope="module", autouse=True)
def _however_few():
    """A dict looks up few entries, by hashes of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join_module, "_SMALL", 0)
        yield


SEEDS = st.binary(max_size=32)
TOKENS = st.lists(st.binary(max_size=40), min_size=1, max_size=30, unique=True)
IDS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=30, unique=True)


def joined_with(seed, new, old):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_SALT", hashing._Salt(seed))
        joined = join(read_vocabulary(new), read_vocabulary(old))
    return joined.rows.tolist(), joined.num_present, joined.repeat


@given(seeds=st.lists(SEEDS, min_size=2, max_size=4), new=TOKENS | IDS, old=TOKENS, data=st.data())
def test_rows_are_the_same_whatever_the_salt(seeds, new, old, data):
    if isinstance(new[0], int):
        old = data.draw(IDS)
    shared = data.draw(st.lists(st.sampled_from(old), unique=True))
    new = [*shared, *new]
    results = [joined_with(seed, new, old) for seed in seeds]
    assert all(result == results[0] for result in results)
    assert results[0][0] == oracle.remap(new, old)


@given(seed=SEEDS, entries=st.lists(st.binary(max_size=2), min_size=1, max_size=30))
def test_a_repeat_is_found_whatever_the_salt(seed, entries):
    assert (joined_with(seed, entries[:1], entries)[2] is None) == (
        len(set(entries)) == len(entries)
    )


def test_long_entries_are_salted_too():
    long = [bytes([at]) * 5000 for at in range(5)]
    assert joined_with(b"a", long[::-1], long) == joined_with(b"b", long[::-1], long)
    vocabulary, hashes = read_vocabulary([b"x" * 1024 + b"a"]), []
    for seed in (b"a", b"b"):
        salt = hashing._Salt(seed)
        salt.factors, salt.step = (
            [1] * len(salt.factors),
            1,
        )  # what is left is the rest of the entry
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hashing, "_SALT", salt)
            hashes.append(int(hash_entries(vocabulary, slice(0, 1))[0]))
    assert hashes[0] != hashes[1]


@given(SEEDS)
def test_whatever_is_drawn_is_odd_and_one_for_each_word(seed):
    salt = hashing._Salt(seed)
    assert len({*salt.factors, salt.step}) == 1024 // 8 + 1
    assert all(number % 2 for number in (*salt.factors, salt.step))


def test_each_process_has_a_salt_of_its_own():
    show = "from torch_warmstart.vocabularies import hashing; print(hashing._SALT.step)"
    shown = {subprocess.check_output([sys.executable, "-c", show]) for _ in range(2)}
    assert len(shown) == 2


KNOWN = {"ids": 0x9E3779B97F4A7C15, "text": 0xBF58476D1CE4E5B9}  # constants of many hashes


def crafted(kind, count=200_000):
    """Entries whose hashes with a known constant are the same in their high bits."""
    inverse = np.uint64(pow(KNOWN[kind], -1, 1 << 64))
    ids = unscattered(np.arange(count, dtype=np.uint64)) * inverse
    if kind == "ids":
        return torch.from_numpy(ids.view(np.int64))
    words = ids - np.uint64(8)  # their length, which has a factor, too
    words ^= words >> np.uint64(32)  # what is done with words, which undoes itself
    return [word.tobytes() for word in words if b"\n" not in word.tobytes()]


def unscattered(hashes):
    """What becomes these hashes in the end."""
    for bits, factor in ((31, 1), (27, hashing._FACTORS[1]), (30, hashing._FACTORS[0])):
        hashes = hashes * np.uint64(pow(factor, -1, 1 << 64))
        hashes = hashes ^ (hashes >> np.uint64(bits)) ^ (hashes >> np.uint64(2 * bits))
    return hashes


def distinct(vocabulary, salt):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_SALT", salt)
        return len(
            torch.unique(as_tensor(hash_entries(vocabulary, slice(0, len(vocabulary)))) >> 24)
        )


@pytest.mark.parametrize("kind", KNOWN)
def test_entries_crafted_to_collide_do_not(kind):
    vocabulary = read_vocabulary(crafted(kind))
    known = hashing._Salt(b"")
    known.step = known.factors[0] = KNOWN[kind] - (1 << 64)
    assert distinct(vocabulary, known) < 20
    assert distinct(vocabulary, hashing._SALT) > len(vocabulary) - 50


def test_crafted_entries_take_no_longer_than_others():
    bad = crafted("ids")
    good = torch.from_numpy(np.random.default_rng(0).permutation(200_000) * 7919)

    good, bad = read_vocabulary(good), read_vocabulary(bad)
    join(good, good)
    started = time.process_time()
    join(good, good)
    spent = time.process_time() - started
    with cpu_seconds_below(5 * spent + 0.2):
        join(bad, bad)
