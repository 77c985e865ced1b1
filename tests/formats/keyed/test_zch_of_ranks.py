"""TorchRec's ZCH as several ranks save it: each sorted the ids of its own rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

EMPTY = (1 << 63) - 1
KEY, FOLDER = "m.embedding_bags.t.weight", "m._managed_collision_modules.t"
NEW = [7, 4, 1000, 9, 8]
# Rows 0 to 3 were the first rank's, 4 to 6 the second's: each has its ids in order.
IDS = [4, 9, 300, EMPTY, 7, 8, EMPTY]
ROWS = [2, 0, 1, 3, 5, 4, 6]


def zch(segments, ids=IDS, rows=ROWS, **more):
    """A state dict of the buffers; `segments` as they are kept, ended by -1."""
    return {
        KEY: torch.arange(14.0).view(7, 2),
        f"{FOLDER}._mch_sorted_raw_ids": torch.tensor(ids),
        f"{FOLDER}._mch_remapped_ids_mapping": torch.tensor(rows),
        f"{FOLDER}._mch_counts": torch.tensor([5, 1, 1, 0, 2, 9, 0]),
        f"{FOLDER}._output_segments_tensor": torch.tensor(
            [*segments, *[-1] * (1025 - len(segments))]
        ),
        **more,
    }


def start(state, **info):
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    infos = {"emb.weight": tws.VocabInfo(NEW, **info)}
    tws.warm_start(model, tws.WarmStartSettings(state, ".*", infos, {"emb.weight": KEY}))
    return model["emb"].weight[:, 0].tolist()


@pytest.mark.parametrize("segments", [[0, 4, 7], [0, 4, 4, 7], [0, 4, 7, 7]])
def test_ids_of_each_rank_are_in_order(segments):
    assert start(zch(segments)) == [10, 4, 0, 0, 8]
    assert start(zch(segments), min_frequency=2) == [10, 4, 0, 0, 8]
    assert start(zch(segments), min_frequency=6) == [0, 0, 0, 0, 8]


@pytest.mark.parametrize(
    ("segments", "more", "said"),
    [
        ([0, 7], {}, "not sorted"),
        ([0, 3, 7], {}, "not sorted"),
        ([0, 4, 7], {"ids": [9, 4, 300, EMPTY, 7, 8, EMPTY]}, "not sorted"),
        ([0, 4, 7], {"ids": [4, 7, 300, EMPTY, 7, 8, EMPTY]}, "an id is there twice"),
        ([0, 4, 7], {"rows": [2, 5, 1, 3, 0, 4, 6]}, "a row of another rank's"),
        ([0, 4, 7], {"rows": [2, 0, -1, 3, 5, 4, 6]}, "a row is none of its values"),
        ([0, 4, 6], {}, r"\(0, 4, 6, ...\) does not cut 7 rows"),
        ([0, 4, 9], {}, "does not cut 7 rows"),
        ([1, 4, 7], {}, "does not cut 7 rows"),
        ([0, 4, 3, 7], {}, "does not cut 7 rows"),
        ([], {}, "does not cut 7 rows"),
        (range(1026), {}, "for 7 rows"),
    ],
)
def test_what_does_not_go_together_is_refused(segments, more, said):
    with pytest.raises(tws.WarmStartError, match=said):
        start(zch(list(segments), **more))


def test_segments_are_integers():
    more = {f"{FOLDER}._output_segments_tensor": torch.tensor([0.0, 4, 7])}
    with pytest.raises(tws.WarmStartError, match="holds no integers"):
        start(zch([0, 4, 7], **more))


def test_the_last_row_of_each_rank_is_nobodys():
    with tws.load_checkpoint(zch([0, 4, 7])) as checkpoint:
        keys = checkpoint.tables()["t"].keys
    assert list(keys.entries) == [9, 300, 4, None, 8, 7, None]
    assert "oov" not in keys.special
