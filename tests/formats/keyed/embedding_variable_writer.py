"""Writes the tensors of DeepRec's and TFRA's embedding variables, by their documents.

Nothing of torch_warmstart is used: names and orders are spelt out here. DeepRec:
docs/docs_en/Embedding-Variable-Export-Format.md and embedding_var_ckpt_data.cc (kSavedPartitionNum
= 1000 sub-parts by `key % 1000`); TFRA: cuckoo_hashtable_ops.py and dynamic_embedding_variable.py.
"""

from __future__ import annotations

import numpy as np
from bundle_writer import BundleEntry, DType

_INT = {"int64": (DType.INT64, "<i8"), "int32": (DType.INT32, "<i4")}


def ints(key, values, dtype="int64", shape=None):
    number, code = _INT[dtype]
    array = np.asarray(values, dtype=code)
    return BundleEntry(key, number, shape or array.shape, array.tobytes())


def floats(key, values):
    array = np.asarray(values, dtype="<f4")
    return BundleEntry(key, DType.FLOAT, array.shape, array.tobytes())


def deeprec(name, rows, *, freqs=None, versions=None, new_form=True, filtered=(), dim=2):
    """One EmbeddingVariable or one part of it; `rows` maps an id to its row."""
    ids = sorted(rows, key=lambda i: (np.fmod(i, 1000), i)) if new_form else list(rows)
    counts = [int(np.fmod(i, 1000)) for i in ids]
    kept = [
        ints(f"{name}-keys", ids, shape=(len(ids),)),
        floats(f"{name}-values", np.array([rows[i] for i in ids]).reshape(len(ids), dim)),
        ints(f"{name}-versions", [versions[i] for i in ids] if versions else []),
        ints(f"{name}-freqs", [freqs[i] for i in ids] if freqs else []),
    ]
    if new_form:
        begins = [sum(c < part for c in counts) for part in range(1001)]
        kept += [
            ints(f"{name}-partition_offset", begins, "int32"),
            ints(f"{name}-keys_filtered", list(filtered)),
            ints(f"{name}-versions_filtered", []),
            ints(f"{name}-freqs_filtered", [1] * len(filtered)),
            ints(f"{name}-partition_filter_offset", [0] * 1000 + [len(filtered)], "int32"),
        ]
    return kept


def increment(name, rows, dim=2):
    """What came since: `-sparse_incr_`, of which the later counts."""
    ids = list(rows)
    return [
        ints(f"{name}-sparse_incr_keys", ids),
        floats(f"{name}-sparse_incr_values", np.array([rows[i] for i in ids]).reshape(-1, dim)),
    ]


def tfra(name, parts):
    """A table of TFRA's in a bundle: `<name>_mht_<i>of<n>-keys`, i from 1."""
    kept = []
    for number, rows in enumerate(parts, 1):
        stem = f"{name}_mht_{number}of{len(parts)}"
        kept.append(ints(f"{stem}-keys", list(rows)))
        kept.append(floats(f"{stem}-values", list(rows.values())))
    return kept
