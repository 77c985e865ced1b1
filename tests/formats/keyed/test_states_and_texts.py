"""What dynamicemb's Adam keeps, which rank has a key there, and keys of TFRA's that are text.

The halves of Adam's values: recsys-examples corelib/dynamicemb/src/optimizer_kernel.cuh, `v_ptr =
m_ptr + dim`; its steps: dynamicemb/optimizer.py, `get_opt_args`; the owner of a key:
key_ownership.py. Text: tensorflow/core/platform/ctstring_internal.h, `TF_TString_Small`.
"""

from __future__ import annotations

import json
import struct

import pytest
import torch
from test_folders_of_tables import floats_of, keys_of
from torch import nn

import torch_warmstart as tws

ARGS = {"lr": 0.1, "iters": 17, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
STATE = ("exp_avg", "exp_avg_sq", "step")
TYPES = "keys=string,values=float"


def by_key(key, world):
    return key % (1 << 64) % world


def by_hash(key, world):
    bits = key % (1 << 64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        bits = ((bits ^ bits >> 33) * factor) % (1 << 64)
    return (bits ^ bits >> 33) % world


def dynamicemb(folder, ids, world=2, args=ARGS, owner=by_key):
    folder.mkdir()
    for rank in range(world):
        mine = [i for i in ids if owner(i, world) == rank]
        end = f"rank_{rank}.world_size_{world}"
        (folder / f"t_emb_keys.{end}").write_bytes(keys_of(mine))
        (folder / f"t_emb_values.{end}").write_bytes(floats_of([[i, -i] for i in mine]))
        values = floats_of([[i + 0.25, i + 0.5, i * i, i * i + 1] for i in mine])
        (folder / f"t_emb_opt_values.{end}").write_bytes(values)
    if args is not None:
        (folder / "t_opt_args.json").write_text(args if isinstance(args, str) else json.dumps(args))
    return str(folder)


def start(url, new, leaves=STATE):
    model = nn.ModuleDict({"emb": nn.Embedding(len(new), 2)})
    optimizer = torch.optim.Adam(model.parameters())
    names = {f"emb.weight/{leaf}": f"t/{leaf}" for leaf in leaves}
    infos = {"emb.weight": tws.VocabInfo(new)}
    settings = tws.WarmStartSettings(
        url, ["emb.weight$", *names], infos, {"emb.weight": "t", **names}
    )
    tws.warm_start(model, settings, optimizer=optimizer)
    state = {name: held.tolist() for name, held in optimizer.state[model["emb"].weight].items()}
    return model["emb"].weight.tolist(), state


@pytest.mark.parametrize(("world", "owner"), [(1, by_key), (3, by_key), (3, by_hash)])
def test_adams_averages_lie_side_by_side(tmp_path, world, owner):
    url = dynamicemb(tmp_path / "d", [4, 7, -9, 12], world, owner=owner)
    rows, state = start(url, [7, 5, -9])
    assert rows == [[7, -7], [0, 0], [-9, 9]]
    assert state == {
        "step": 17,
        "exp_avg": [[7.25, 7.5], [0, 0], [-8.75, -8.5]],
        "exp_avg_sq": [[49, 50], [0, 0], [81, 82]],
    }
    with tws.load_checkpoint(url) as checkpoint:
        table = checkpoint.tables()["t"]
        assert list(table.slots) == ["opt_values", "exp_avg", "exp_avg_sq"]
        numbers = checkpoint.get_tensor("t/exp_avg_sq", rows=[1, 0])
        ids = table.slots["exp_avg_sq"].keys.listed.ids[[1, 0]]
        assert numbers[:, 0].tolist() == (ids * ids).tolist()


@pytest.mark.parametrize("args", [None, {}, [1], {"lr": 1, "eps": 1}], ids=str)
def test_which_optimizer_it_was_is_not_guessed(tmp_path, args):
    """Four numbers for two columns may be row-wise Adagrad's, which older versions pad."""
    url = dynamicemb(tmp_path / "d", [4, 7], args=args)
    with pytest.raises(tws.PlanError, match="asks for 't/exp_avg', which .* does not have"):
        start(url, [4, 7])


@pytest.mark.parametrize("args", ["{", {**ARGS, "iters": "x"}, {**ARGS, "iters": 1 << 70}], ids=str)
def test_arguments_that_are_none_are_refused(tmp_path, args):
    with pytest.raises(tws.CorruptCheckpointError, match="t_opt_args.json"):
        start(dynamicemb(tmp_path / "d", [4, 7], args=args), [4, 7])


def test_a_key_is_with_the_rank_of_one_of_the_rules(tmp_path):
    url = dynamicemb(tmp_path / "d", [4, 7, 9], 3, owner=lambda *_: 0)
    with pytest.raises(tws.CorruptCheckpointError, match="key 4 is in the file of rank 0 of 3"):
        start(url, [4, 7])


# -- text ------------------------------------------------------------------------------------------


def tstring(text, rest=b"\xee"):
    """The length times four, the text, and whatever lay behind it."""
    return bytes([len(text) << 2]) + text + rest * (23 - len(text))


def tfra(folder, keys):
    folder.mkdir()
    keys = list(keys)
    (folder / "emb-keys").write_bytes(b"".join(keys))
    flat = [number for i in range(len(keys)) for number in (i, -i)]
    (folder / "emb-values").write_bytes(struct.pack(f"<{len(flat)}f", *flat))
    return str(folder)


def texts(url, new, entry=TYPES):
    model = nn.ModuleDict({"emb": nn.Embedding(len(new), 2)})
    infos = {"emb.weight": tws.VocabInfo(new)}
    settings = tws.WarmStartSettings(url, ".*", infos, {"emb.weight": "emb"}, entry=entry)
    tws.warm_start(model, settings)
    return model["emb"].weight.tolist()


def test_short_texts_lie_in_their_place(tmp_path):
    keys = [b"paris", b"", b"x" * 22, "łódź".encode()]
    assert tstring(b"ab", b"\0").hex() == "08" + "6162" + 21 * "00"
    url = tfra(tmp_path / "t", map(tstring, keys))
    assert texts(url, ["łódź", "oslo", "paris", "x" * 22]) == [[3, -3], [0, 0], [0, 0], [2, -2]]
    with tws.load_checkpoint(url, entry=TYPES) as checkpoint:
        found = checkpoint.tables()["emb"].keys
    assert list(found.entries) == keys


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (b"\x01" + bytes(23), "text keys of more than 22 bytes"),  # an address
        (b"\x5c" + b"y" * 23, "longer than its place"),  # 23 bytes
        (tstring(b"ab\0"), "ends in a zero byte"),
        (tstring(b"paris"), "is there twice"),
        (tstring(b"a")[:-1], "no whole keys"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_texts_that_are_none_are_refused(tmp_path, key, told):
    url = tfra(tmp_path / "t", [tstring(b"paris"), key])
    with pytest.raises(tws.WarmStartError, match=told):
        texts(url, ["paris"])
