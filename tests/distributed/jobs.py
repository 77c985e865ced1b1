"""What the ranks do in tests: functions that are run on each of them, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from sharded_models import SHARDINGS, Tower, assert_slices, fill_both
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import torch_warmstart as tws

OLD_WORDS = [f"w{number}" for number in range(7)]
NEW_WORDS = ["w6", "new", "w0", "w3", "newer", "w2", "w5", "newest", "w1"]


def old_state() -> dict[str, torch.Tensor]:
    """A trained tower, the same on every rank."""
    torch.manual_seed(5)
    tower = Tower()
    for tensor in tower.buffers():
        tensor.copy_(torch.rand(tensor.shape).to(tensor.dtype))
    return tower.state_dict()


def save_old_state(folder: Path) -> str:
    """The same in a file."""
    path = folder / "tower.pt"
    torch.save(old_state(), path)
    return str(path)


def of_tensorflow(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under TensorFlow's names and in its layouts."""
    return {
        "table/embeddings:0": state["table.weight"],
        "up/kernel:0": state["up.weight"].T.contiguous(),
        "up/bias:0": state["up.bias"],
        "norm/gamma:0": state["norm.weight"],
        "norm/beta:0": state["norm.bias"],
        "norm/moving_mean:0": state["norm.running_mean"],
        "norm/moving_variance:0": state["norm.running_var"],
        "down/kernel:0": state["down.weight"].T.contiguous(),
    }


def seed_of_this_rank() -> int:
    """Another one on every rank but the first, which has that of the whole model."""
    return 2 + dist.get_rank()


def fill_plainly(how: str, path: str) -> None:
    """All variables by their own names, from a file."""
    fill_both(how, Tower, tws.WarmStartSettings(path, [".*"]))


def fill_from_tensorflow(how: str) -> None:
    """Transposed kernels, of which a rank may own columns."""
    fill_both(how, Tower, tws.WarmStartSettings(of_tensorflow(old_state())))


def fill_with_vocabulary(how: str, source: str) -> None:
    """A table's rows and a layer's columns by a vocabulary; random new rows, unequal seeds."""
    words = functools.partial(tws.VocabInfo, NEW_WORDS, -1, 1, OLD_WORDS)
    state = old_state()
    if source == "columns of the file":
        torch.manual_seed(6)
        state["up.weight"] = torch.rand(10, 7)
    infos = {"table.weight": words(backup_initializer=nn.init.normal_)}
    if source == "columns of the file":
        infos["up.weight"] = words(axis=1, backup_initializer=nn.init.xavier_uniform_)
    make = functools.partial(_Wide if source == "columns of the file" else Tower, rows=10)
    settings = tws.WarmStartSettings(
        of_tensorflow(state) if source == "tensorflow" else state,
        ".*weight",
        infos,
        on_missing="keep",
    )
    fill_both(how, make, settings, seed=seed_of_this_rank())


class _Wide(Tower):
    """Its first layer takes as many features as the table has rows."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.up = nn.Linear(rows, 10)


def fill_with_generator(how: str) -> None:
    """The rows of a generator of the user's, which is another one on each rank."""

    def settings(seed: int) -> tws.WarmStartSettings:
        generator = torch.Generator().manual_seed(seed)
        fresh = {"backup_initializer": nn.init.normal_, "generator": generator}
        info = tws.VocabInfo(NEW_WORDS, -1, 1, OLD_WORDS, **fresh)
        return tws.WarmStartSettings(old_state(), "table", {"table.weight": info})

    own = settings(seed_of_this_rank())
    fill_both(how, functools.partial(Tower, rows=10), settings(2), of_sharded=own)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": functools.partial(torch.optim.Adam, lr=0.1, amsgrad=True),
    "SGD": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "Adagrad": functools.partial(torch.optim.Adagrad, lr=0.1),
    "AdamW, foreach": functools.partial(torch.optim.AdamW, lr=0.1, foreach=True),
}


def trained(name: str) -> dict[str, Any]:
    """A model and its optimizer after a step, as a training loop saves them."""
    torch.manual_seed(7)
    model = Tower()
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(2):
        model(torch.arange(7)).square().sum().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def fill_optimizer(how: str, name: str) -> None:
    """An optimizer's slots go with the rows of their parameters."""
    info = {"table.weight": tws.VocabInfo(NEW_WORDS, -1, 1, OLD_WORDS)}
    settings = tws.WarmStartSettings(trained(name), ".*", info, entry="model")
    make = functools.partial(Tower, rows=10)
    model, _ = fill_both(how, make, settings, optimizer=OPTIMIZERS[name])
    if how in ("fsdp", "data_parallel"):
        model(torch.arange(10)).square().sum().backward()  # it can go on


def fill_wrapped(how: str) -> None:
    """What wrappers add to names is no part of them."""

    def make() -> nn.Module:
        model = Tower()
        model.up = checkpoint_wrapper(model.up)
        return model

    fill_both(how, make, tws.WarmStartSettings(old_state(), [".*"]))


class _Hooked(Tower):
    """Does things of its own when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.up.register_load_state_dict_pre_hook(_double_bias)
        self.norm.register_load_state_dict_post_hook(_triple_weight)
        self.down = _LoadsItself(10, 3, bias=False)


class _LoadsItself(nn.Linear):
    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        state[prefix + "weight"] = state[prefix + "weight"] + 1
        super()._load_from_state_dict(state, prefix, *rest)


def _double_bias(module: nn.Module, state: Any, prefix: str, *_: Any) -> None:
    state[prefix + "bias"] = state[prefix + "bias"] * 2


def _triple_weight(module: nn.Module, _: Any) -> None:
    with torch.no_grad():
        module.weight.mul_(3)


def fill_hooked(how: str) -> None:
    """Hooks get tensors that are sharded as the parameters are."""
    fill_both(how, _Hooked, tws.WarmStartSettings(old_state(), [".*"]))


def fill_gathered() -> None:
    """A forward pass may leave parameters gathered; what they are given then would be lost."""
    torch.manual_seed(1)
    model = Tower()
    torch.distributed.fsdp.fully_shard(model, reshard_after_forward=False)
    model(torch.arange(7))
    tws.warm_start(model, tws.WarmStartSettings(old_state(), [".*"]))
    expected = Tower()
    expected.load_state_dict(old_state())
    assert assert_slices(model, expected)


def fill_from_slices(how: str, path: str) -> None:
    """A table that lies in slices, rows of which go to several ranks."""
    words = tws.VocabInfo(NEW_WORDS, -1, 1, OLD_WORDS)
    rules = {"table.weight": "emb"}
    for info, rows in ((None, 7), ({"table.weight": words}, 10)):
        settings = tws.WarmStartSettings(path, "table", info, rules)
        fill_both(how, functools.partial(Tower, rows=rows), settings)


def fill_from_meta(how: str) -> None:
    """A sharded model on meta, of which the checkpoint has all but the last layers."""
    state = {n: t for n, t in old_state().items() if not n.startswith(("down", "norm"))}
    with torch.device("meta"):
        model = SHARDINGS[how](Tower())
    settings = tws.WarmStartSettings(state, [".*"], on_missing="keep")
    torch.manual_seed(seed_of_this_rank())
    tws.warm_start(model, settings)
    expected = Tower()
    expected.load_state_dict(state, strict=False)
    down = _whole(model.down.weight)
    assert down.abs().max() <= 10**-0.5  # as nn.Linear begins
    assert len(down.unique()) == down.numel()  # no shard has the numbers of another one
    with torch.no_grad():
        expected.down.weight.copy_(down)
    assert assert_slices(model, expected)
    assert all(torch.equal(one, down) for one in _of_all(down))
    if how == "fsdp":
        model(torch.arange(7)).sum().backward()


def _whole(tensor: Any) -> torch.Tensor:
    return getattr(tensor.detach(), "full_tensor", tensor.detach)()


def _of_all(tensor: torch.Tensor) -> list[torch.Tensor]:
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(found, tensor)
    return found


def undo_on_meta(how: str) -> None:
    """A rank that fails leaves all of them on meta, and a second try succeeds."""
    with torch.device("meta"):
        model = SHARDINGS[how](Tower())
    hooks = [model.norm.register_load_state_dict_pre_hook(_fail_on_rank_1)]
    settings = tws.WarmStartSettings(old_state(), [".*"])
    try:
        tws.warm_start(model, settings)
    except tws.WarmStartError:
        assert all(tensor.is_meta for tensor in model.parameters())
    else:
        raise AssertionError("it did not fail")
    hooks[0].remove()
    tws.warm_start(model, settings)
    expected = Tower()
    expected.load_state_dict(old_state())
    assert assert_slices(model, expected)
    model(torch.arange(7)).sum().backward()


def _fail_on_rank_1(*_: Any) -> None:
    if dist.get_rank() == 1:
        raise RuntimeError("not here")


def fill_copies(is_together: bool) -> tuple[bool, list[str]]:
    """Plain models of all ranks, with unequal seeds: whether they are equal, and what is said."""
    info = tws.VocabInfo(NEW_WORDS, -1, 1, OLD_WORDS, backup_initializer=nn.init.normal_)
    settings = tws.WarmStartSettings(old_state(), ["table"], {"table.weight": info})
    group = dist.group.WORLD if is_together else None
    model = Tower(10)
    torch.manual_seed(seed_of_this_rank())
    report = tws.warm_start(model, settings, process_group=group)
    rows = _of_all(model.table.weight.detach())
    return all(torch.equal(rows[0], other) for other in rows), [n.code for n in report.notes]


def fill_sharded_tensor() -> list[list[float]]:
    """A model that has a ShardedTensor of torch's: what is here of it then."""
    from torch.distributed._shard import sharded_tensor
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec

    places = ["rank:0/cpu", "rank:1/cpu"]
    table = sharded_tensor.zeros(ChunkShardingSpec(0, places), 4, 2)
    model = nn.Module()
    model._parameters["table"] = table
    tws.warm_start(model, {"table": torch.arange(8.0).reshape(4, 2)})
    found: list[list[float]] = table.local_tensor().tolist()
    return found
