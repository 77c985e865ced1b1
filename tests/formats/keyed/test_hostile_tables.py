"""Every form of keyed tables, and every kind of lie: refused before a row is taken.

A form is a function that writes three ids, 4, 7 and 9, with rows of two numbers, and the lies that
it is asked for. What a form cannot say at all stands in `_CANNOT`.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import monolith_writer as mw
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from embedding_variable_writer import floats, ints
from torch import nn

import torch_warmstart as tws

NEW = [7, 4, 1000, 9]
IDS = [4, 7, 9]
EMPTY = (1 << 63) - 1
# What is said of each, whatever the form is.
LIES = {
    "fewer keys": r"key column is|its shape \[4, 2\] must|no rows of one width|\[3.* for 4 rows",
    "more keys": r"key column is|no rows of one width|\[5.* for 4 rows",
    "a key twice": "is there twice",
    "keys that are no integers": "no whole numbers|holds no integers",
    "a part of another width": "several widths|no rows of one width|its rows have .* numbers",
    "a part that is missing": "missing|is no checkpoint|There is no|no files",
    "a negative frequency": "a frequency of it is -5",
    "fewer frequencies": r"frequency column is \[2\]|for 4 rows",
    "a version below never": "a version of it is -5",
    "fewer versions": r"version column is \[2\]|for 4 rows",
}


def ids_of(lie, ids=IDS):
    told = {"fewer keys": ids[:-1], "more keys": [*ids, 11], "a key twice": [*ids[:-1], ids[0]]}
    return told.get(lie, list(ids))


def column_of(lie, what, values):
    if lie == f"fewer {what}":
        return values[:-1]
    is_low = lie in ("a negative frequency", "a version below never") and what[:4] in lie
    return [-5, *values[1:]] if is_low else values


def rows_of(lie, ids=IDS):
    return [[i, -i, 1.0] if lie == "a part of another width" else [i, -i] for i in ids]


def _ev(tmp_path, lie, name, keys, more):
    stem = name + "-"
    if lie == "keys that are no integers":
        told = struct.pack("<3f", *IDS)
        keys_tensor = BundleEntry(f"{stem}keys", DType.FLOAT, (3,), told)
    else:
        keys_tensor = ints(f"{stem}keys", keys)
    entries = [keys_tensor, floats(f"{stem}values", rows_of("")), *more]
    if lie == "a part that is missing":
        entries = [replace(e, key=e.key.replace("part_0", "part_1")) for e in entries]
    write_bundle(tmp_path / "m", sorted(entries, key=lambda entry: entry.key))
    return str(tmp_path / "m"), "emb", None


def deeprec(tmp_path, lie):
    freqs = column_of(lie, "frequencies", [1, 2, 3])
    versions = column_of(lie, "versions", [10, 20, 30])
    more = [ints("emb/part_0-freqs", freqs), ints("emb/part_0-versions", versions)]
    if lie == "a part of another width":
        more += [ints("emb/part_1-keys", [11]), floats("emb/part_1-values", [[1, 2, 3]])]
    return _ev(tmp_path, lie, "emb/part_0", ids_of(lie), more)


def tfra_bundle(tmp_path, lie):
    count = 2 if lie in ("a part of another width", "a part that is missing") else 1
    more = []
    if lie == "a part of another width":
        more = [ints("emb_mht_2of2-keys", [11]), floats("emb_mht_2of2-values", [[1, 2, 3]])]
    return _ev(tmp_path, lie, f"emb_mht_1of{count}", ids_of(lie), more)


def raw(path, code, values):
    flat = [n for row in values for n in row] if code == "f" else list(values)
    path.write_bytes(struct.pack(f"<{len(flat)}{code}", *flat))


def _two_files(tmp_path, lie, names):
    """Two parts: of the first 4, and of the second 7 and 9, which is the one that lies."""
    if lie == "a part that is missing":
        names = [(names[1][0], names[1][1])]
        parts = [[7, 9]]
    else:
        parts = [[4], [7, 9]]
    for (keys, values), ids in zip(names, parts, strict=True):
        told = lie if ids == [7, 9] else ""
        raw(tmp_path / keys, "q", ids_of(told, ids))
        raw(tmp_path / values, "f", rows_of(told, ids))
    return str(tmp_path)


def tfra_folder(tmp_path, lie):
    stems = [f"emb_mht_1of1_rank{rank}_size2" for rank in (0, 1)]
    names = [(f"{stem}-keys", f"{stem}-values") for stem in stems]
    return _two_files(tmp_path, lie, names), "emb", "keys=int64,values=float"


def dynamicemb(tmp_path, lie):
    ends = [f"rank_{rank}.world_size_2" for rank in (0, 1)]
    names = [(f"emb_emb_keys.{end}", f"emb_emb_values.{end}") for end in ends]
    return _two_files(tmp_path, lie, names), "emb", None


def hugectr(tmp_path, lie):
    folder = tmp_path / "emb"
    folder.mkdir()
    raw(folder / "key", "q", ids_of(lie))
    if lie != "a part that is missing":
        raw(folder / "emb_vector", "f", rows_of(""))
    return str(folder), "emb", None


def monolith(tmp_path, lie):
    ids = ids_of(lie)
    entries = [mw.entry_dump(i, [i, -i], (), 100 + i) for i in ids[:2]]
    last = [9, -9, 1] if lie == "a part of another width" else [9, -9]
    updated = -5 if lie == "a version below never" else 109
    entries += [mw.entry_dump(i, last, (), updated) for i in ids[2:]]
    url = mw.table(tmp_path, "emb", entries, 2)
    if lie == "a part that is missing":
        (tmp_path / "emb-00001-of-00002").unlink()
    return url, "emb", None


def zch(tmp_path, lie):
    del tmp_path
    folder = "m._managed_collision_modules.t"
    ids = sorted(ids_of(lie))
    counts, iters = (column_of(lie, w, [1, 2, 3]) for w in ("frequencies", "versions"))
    keys = torch.tensor([*ids, EMPTY])
    if lie == "keys that are no integers":
        keys = keys.double()
    state = {
        "m.embedding_bags.t.weight": torch.tensor([*rows_of(""), [0.0, 0.0]]),
        f"{folder}._mch_sorted_raw_ids": keys,
        f"{folder}._mch_remapped_ids_mapping": torch.arange(4),
        f"{folder}._mch_counts": torch.tensor([*counts, 0]),
        f"{folder}._mch_last_access_iter": torch.tensor([*iters, 0]),
    }
    if lie == "a part that is missing":
        del state[f"{folder}._mch_remapped_ids_mapping"]
    return state, "m.embedding_bags.t.weight", None


def mpzch(tmp_path, lie):
    del tmp_path
    keys = torch.tensor([*ids_of(lie), -1])[:, None]
    return (
        {
            "m.embeddings.t.weight": torch.tensor([*rows_of(""), [0.0, 0.0]]),
            "m._managed_collision_modules.t._hash_zch_identities": (
                keys.double() if lie == "keys that are no integers" else keys
            ),
        },
        "m.embeddings.t.weight",
        None,
    )


FORMS = (deeprec, tfra_bundle, tfra_folder, dynamicemb, hugectr, monolith, zch, mpzch)
_NO_TYPES = {"keys that are no integers"}  # raw files and records have none
_NO_COLUMNS = set(list(LIES)[-4:])
_CANNOT = {
    deeprec: set(),
    tfra_bundle: _NO_COLUMNS,
    tfra_folder: _NO_TYPES | _NO_COLUMNS,
    dynamicemb: _NO_TYPES | _NO_COLUMNS,
    hugectr: _NO_TYPES | _NO_COLUMNS | {"a part of another width"},  # it has one part
    monolith: _NO_TYPES
    | {"fewer keys", "more keys", "a negative frequency", "fewer frequencies", "fewer versions"},
    zch: {"a part of another width"},
    mpzch: _NO_COLUMNS | {"a part of another width", "a part that is missing"},
}
CASES = [(form, lie) for form in FORMS for lie in LIES if lie not in _CANNOT[form]]


def start(source, key, entry, lie):
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    nn.init.constant_(model["emb"].weight, 5.0)
    asked = {}
    if "frequen" in lie:
        asked = {"min_frequency": 0}
    if "version" in lie:
        asked = {"since_version": 0}
    settings = tws.WarmStartSettings(
        source,
        ".*",
        {"emb.weight": tws.VocabInfo(NEW, **asked)},
        {"emb.weight": key},
        entry=entry,
    )
    try:
        tws.warm_start(model, settings)
    except tws.WarmStartError:
        assert model["emb"].weight.unique().tolist() == [5.0]
        raise
    return model["emb"].weight.tolist()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("column", ["", "frequency", "version"])
def test_without_a_lie_the_rows_are_right(tmp_path, form, column):
    has = {"frequency": (deeprec, zch), "version": (deeprec, zch, monolith)}
    if column and form not in has[column]:
        return
    assert start(*form(tmp_path, ""), column) == [[7, -7], [4, -4], [0, 0], [9, -9]]


@pytest.mark.parametrize(
    ("form", "lie"), CASES, ids=[f"{form.__name__}-{lie.replace(' ', '-')}" for form, lie in CASES]
)
def test_lies_are_refused(tmp_path, form, lie):
    source, key, entry = form(tmp_path, lie)
    with pytest.raises(tws.WarmStartError, match=LIES[lie]):
        start(source, key, entry, lie)
