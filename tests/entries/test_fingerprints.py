"""TensorFlow's hash of entries: the same numbers for ever, of every length."""

from __future__ import annotations

import random

import pytest
import torch

from torch_warmstart.entries import Entries, entries_of_bytes, hash_buckets
from torch_warmstart.entries.fingerprints import fingerprints


def _entries(values):
    return entries_of_bytes(values, "entries")


# Of tf.strings.to_hash_bucket_fast(b"x" * length, 2**62), a length of each kind.
KNOWN = {
    0: 1936946117179621455,
    1: 107802420385376258,
    5: 4353426961065742888,
    12: 2344409068416288835,
    20: 3621402210320469444,
    50: 4607997358663321893,
    64: 2304502108871267256,
    65: 323337772074164025,
    200: 103930210689786815,
}


def test_they_are_what_tensorflow_has_always_had():
    found = hash_buckets(_entries([b"x" * length for length in KNOWN]), 1 << 62)
    assert found.tolist() == [*KNOWN.values()]


def test_an_entry_s_hash_does_not_depend_on_its_neighbours():
    rng = random.Random(0)
    entries = [rng.randbytes(rng.choice([0, 2, 6, 9, 30, 60, 64, 100, 500])) for _ in range(200)]
    together = fingerprints(_entries(entries)).tolist()
    assert together == [int(fingerprints(_entries([entry]))[0]) for entry in entries]


def test_integers_are_hashed_by_their_digits():
    ids = [0, 7, -8, 2**40, -(2**63)]
    texts = [str(one).encode() for one in ids]
    of_ids = hash_buckets(Entries("ids", "entry", ids=torch.tensor(ids)), 1000)
    assert torch.equal(of_ids, hash_buckets(_entries(texts), 1000))


@pytest.mark.tensorflow
def test_tensorflow_agrees_on_every_length():
    tf = pytest.importorskip("tensorflow")
    rng = random.Random(1)
    entries = [rng.randbytes(length) for length in range(300)]
    wanted = tf.strings.to_hash_bucket_fast(tf.constant(entries), 1_000_003).numpy()
    assert hash_buckets(_entries(entries), 1_000_003).tolist() == wanted.tolist()
