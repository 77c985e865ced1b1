"""The fixtures' names and bytes, spelt out beside the lines of the stacks that say so.

Readers and writers here could share a mistake about a layout; these could not without the citation
being wrong as well. DeepRec's, HugeCTR's, Monolith's and NVTabular's stand in their own tests.
"""

from __future__ import annotations

import torch
from embedding_variable_writer import tfra
from test_folders_of_tables import dynamicemb
from test_zch_in_dcp import mpzch, zch

import torch_warmstart as tws

ONE, MINUS_ONE = "00 00 80 3f", "00 00 80 bf"  # float32, little-endian


def test_tfra_in_a_bundle():
    """Two tensors for each table: its keys, and a row for each of them.

    cuckoo_hashtable_ops.py:549-550 (TFRA 0.7): `SaveSpec(tensors[0], "", name + "-keys")`, and
    `-values`; warm_start_util.py:104: `'{}_mht_{}of{}'`, counted from 1.
    """
    parts = tfra("user", [{1: [1.0, -1.0]}, {258: [-1.0, 1.0]}])
    assert [(entry.key, entry.shape, entry.data.hex(" ")) for entry in parts] == [
        ("user_mht_1of2-keys", (1,), "01 00 00 00 00 00 00 00"),
        ("user_mht_1of2-values", (1, 2), f"{ONE} {MINUS_ONE}"),
        ("user_mht_2of2-keys", (1,), "02 01 00 00 00 00 00 00"),
        ("user_mht_2of2-values", (1, 2), f"{MINUS_ONE} {ONE}"),
    ]
    assert [int(entry.dtype) for entry in parts] == [9, 1, 9, 1]  # DT_INT64, DT_FLOAT


def test_dynamicemb(tmp_path):
    """A file for each column and rank, of nothing but numbers.

    batched_dynamicemb_tables.py, `encode_checkpoint_file_path`:
    `f"{table_name}_emb_{item}.rank_{rank}.world_size_{world_size}"`, item one of keys, values,
    scores, opt_values; types.py: keys and scores int64, the others float32; the owner of a key is
    `key % world_size`.
    """
    dynamicemb(tmp_path / "d", "user", [1, 2], 2, opt=3, scores={1: 7, 2: 8})
    found = {path.name: path.read_bytes().hex(" ") for path in (tmp_path / "d").iterdir()}
    assert found == {
        "user_emb_keys.rank_0.world_size_2": "02 00 00 00 00 00 00 00",
        "user_emb_values.rank_0.world_size_2": "00 00 00 40 00 00 00 c0",  # 2, -2
        "user_emb_scores.rank_0.world_size_2": "08 00 00 00 00 00 00 00",
        "user_emb_opt_values.rank_0.world_size_2": f"00 00 a0 40 {MINUS_ONE}",  # 5, -1
        "user_emb_keys.rank_1.world_size_2": "01 00 00 00 00 00 00 00",
        "user_emb_values.rank_1.world_size_2": f"{ONE} {MINUS_ONE}",
        "user_emb_scores.rank_1.world_size_2": "07 00 00 00 00 00 00 00",
        "user_emb_opt_values.rank_1.world_size_2": "00 00 80 40 00 00 00 c0",  # 4, -2
    }


def test_the_counters_of_dynamicemb_are_no_table(tmp_path):
    """`encode_counter_checkpoint_file_path`: ids that are counted, and have no row yet."""
    url = dynamicemb(tmp_path / "d", "user", [1, 2], 1)
    for item in ("keys", "frequencies"):
        (tmp_path / "d" / f"user_counter_{item}.rank_0.world_size_1").write_bytes(b"\5" + b"\0" * 7)
    with tws.load_checkpoint(url) as checkpoint:
        assert list(checkpoint.tables()) == ["user"]
        assert checkpoint.tables()["user"].keys.listed.ids.tolist() == [1, 2]


def test_zch():
    """mc_modules.py:1141-1185 (TorchRec 1.9): ids sorted, the largest int64 where there is none."""
    state = {key.rpartition(".")[2]: tensor for key, tensor in zch().items()}
    assert {name: str(tensor.dtype) for name, tensor in state.items()} == {
        "weight": "torch.float32",
        "_mch_sorted_raw_ids": "torch.int64",
        "_mch_remapped_ids_mapping": "torch.int64",
        "_mch_counts": "torch.int64",
        "_mch_last_access_iter": "torch.int64",
        "_output_segments_tensor": "torch.int64",
        "_current_iter_tensor": "torch.int64",
    }
    assert state["_mch_sorted_raw_ids"].numpy().tobytes().hex(" ", 8) == (
        "0400000000000000 0900000000000000 c800000000000000 ffffffffffffff7f ffffffffffffff7f"
    )
    assert state["_mch_remapped_ids_mapping"].numpy().tobytes().hex(" ", 8) == (
        "0300000000000000 0000000000000000 0100000000000000 0200000000000000 0400000000000000"
    )


def test_mpzch():
    """hash_mc_modules.py:340-341: identities and metadata of [size, 1], int64 and int32."""
    state = {key.rpartition(".")[2]: tensor for key, tensor in mpzch().items()}
    identities, metadata = state["_hash_zch_identities"], state["_hash_zch_metadata"]
    assert (identities.shape, identities.dtype) == ((4, 1), torch.int64)
    assert (metadata.shape, metadata.dtype) == ((4, 1), torch.int32)
    assert identities.numpy().tobytes().hex(" ", 8) == (
        "0900000000000000 ffffffffffffffff 0400000000000000 ffffffffffffffff"
    )
    assert metadata.numpy().tobytes().hex(" ", 4) == "01000000 00000000 02000000 00000000"
