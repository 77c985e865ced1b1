"""Warm starts by torch.distributed.checkpoint's own load."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.distributed as dist
from jobs import NEW_WORDS, OLD_WORDS, of_tensorflow, old_state
from sharded_models import SHARDINGS, Tower, assert_slices, fsdp
from torch import nn
from torch.distributed import checkpoint as dcp

import torch_warmstart as tws

LETTERS = list("abcdefghij")
RULES = {"table.weight": "emb", "up.": "first."}


def save_renamed(folder: str) -> None:
    """An old model, sharded over the ranks, under other names."""
    model = fsdp(Tower())
    tws.warm_start(model, tws.WarmStartSettings(old_state(), [".*"]))
    names = {"table.weight": "emb", "up.weight": "first.weight", "up.bias": "first.bias"}
    state = {names.get(name, name): tensor for name, tensor in model.state_dict().items()}
    dcp.save({"model": state, "step": 7}, checkpoint_id=folder)


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same without torch.distributed.checkpoint."""
    names = {"table.weight": "emb", "up.weight": "first.weight", "up.bias": "first.bias"}
    return {names.get(name, name): tensor for name, tensor in state.items()}


def load(how: str, folder: str, read_limit: int, source: Any, **settings: Any) -> Any:
    """By a planner, compared with `warm_start` of the whole model from `source`."""
    rows = 10 if "var_name_to_vocab_info" in settings else 7
    torch.manual_seed(1)
    whole = Tower(rows)
    torch.manual_seed(1)
    model = SHARDINGS[how](Tower(rows))
    torch.manual_seed(2)
    expected = tws.warm_start(whole, tws.WarmStartSettings(source, [".*"], **settings))
    torch.manual_seed(2 + (dist.get_rank() if dist.is_initialized() else 0))
    own = tws.WarmStartSettings(None, [".*"], **settings)
    planner = tws.load_planner(model, own, read_limit=read_limit)
    dcp.load(model.state_dict(), checkpoint_id=folder, planner=planner)
    assert assert_slices(model, whole)
    report = planner.report()
    assert [a.state for a in report.variables] == [a.state for a in expected.variables]
    return len(planner._reads)


def load_plainly(how: str, folder: str) -> None:
    """Renames."""
    load(how, folder, 1 << 20, renamed(old_state()), var_name_to_prev_var_name=RULES)


def load_with_vocabulary(how: str, folder: str, read_limit: int) -> int:
    """Rows, with random new ones and unequal seeds, and columns by position."""
    words = functools.partial(tws.VocabInfo, NEW_WORDS, -1, 1, OLD_WORDS)
    info = {"table.weight": words(backup_initializer=nn.init.normal_)}
    source = renamed(old_state())
    settings = {"var_name_to_prev_var_name": RULES, "var_name_to_vocab_info": info}
    return int(load(how, folder, read_limit, source, **settings))


AXES = {
    "table.weight": [
        tws.VocabInfo(NEW_WORDS, -1, 1, OLD_WORDS, backup_initializer=nn.init.normal_),
        tws.SegmentInfo({"c": 2, "a": 3, "new": 1}, {"a": 3, "b": 1, "c": 2}),
    ],
    "up.weight": [tws.ClipOrPad(1, nn.init.ones_), tws.VocabInfo(LETTERS[::-1], old_vocab=LETTERS)],
    "up.bias": tws.ClipOrPad(0),  # by position, whatever the weight does
}


def load_with_axes(how: str, folder: str, read_limit: int) -> int:
    """Rows and columns at once, where shards are along either."""
    settings = {"var_name_to_prev_var_name": RULES, "var_name_to_vocab_info": AXES}
    return int(load(how, folder, read_limit, renamed(old_state()), **settings))


def save_of_tensorflow(folder: str) -> None:
    """In TensorFlow's layouts, which a planner has to change."""
    dcp.save(of_tensorflow(old_state()), checkpoint_id=folder)


LAYOUTS = {"up.weight": "transpose", "down.weight": "transpose"}
TF_RULES = {
    "table.weight": "table/embeddings:0",
    "up.weight": "up/kernel:0",
    "up.bias": "up/bias:0",
    "norm.weight": "norm/gamma:0",
    "norm.bias": "norm/beta:0",
    "norm.running_mean": "norm/moving_mean:0",
    "norm.running_var": "norm/moving_variance:0",
    "down.weight": "down/kernel:0",
}


def load_of_tensorflow(how: str, folder: str) -> None:
    """Transposed kernels straight into columns of shards."""
    settings = {
        "var_name_to_prev_var_name": TF_RULES,
        "var_name_to_layout": LAYOUTS,
        "on_missing": "keep",
    }
    load(how, folder, 1 << 20, of_tensorflow(old_state()), **settings)


def problem(how: str, folder: str, rank: int) -> str:
    """What `load` raises where one rank wants something else."""
    model = SHARDINGS[how](Tower())
    before = [local.clone() for local in map(_local, model.parameters())]
    rules = RULES if dist.get_rank() != rank else {"table.weight": "nowhere"}
    planner = tws.load_planner(
        model, tws.WarmStartSettings(None, ".*", var_name_to_prev_var_name=rules)
    )
    try:
        dcp.load(model.state_dict(), checkpoint_id=folder, planner=planner)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
    else:
        text = "nothing"
    assert all(map(torch.equal, before, map(_local, model.parameters())))
    return text


def other_vocabulary(folder: str) -> str:
    """The ranks' words differ: their plans do."""
    words = NEW_WORDS if dist.get_rank() != 1 else NEW_WORDS[::-1]
    info = {"table.weight": tws.VocabInfo(words, -1, 1, OLD_WORDS)}
    model = fsdp(Tower(10))
    settings = tws.WarmStartSettings(None, ".*", info, RULES)
    planner = tws.load_planner(model, settings)
    try:
        dcp.load(model.state_dict(), checkpoint_id=folder, planner=planner)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def _local(tensor: Any) -> torch.Tensor:
    found = getattr(tensor.detach(), "to_local", tensor.detach)
    return found()


def save_filled(folder: str) -> None:
    """A warm-started model as a destination of DCP."""
    model = fsdp(Tower(10))
    info = {"table.weight": tws.VocabInfo(NEW_WORDS, -1, 1, OLD_WORDS)}
    settings = tws.WarmStartSettings(old_state(), [".*"], info)
    tws.warm_start(model, settings)
    dcp.save(model.state_dict(), checkpoint_id=folder)
