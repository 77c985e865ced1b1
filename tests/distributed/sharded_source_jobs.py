"""What the ranks do in the tests of sharded tensors in memory as what a model is filled from."""

from __future__ import annotations

import functools
from typing import Any

import jobs
import torch
import torch.distributed as dist
from sharded_models import SHARDINGS, Tower, fill_both
from torch import nn

import torch_warmstart as tws


def trained(how: str, rows: int = 7) -> nn.Module:
    """A trained tower, sharded."""
    torch.manual_seed(8)
    whole = Tower(rows)
    for tensor in whole.buffers():
        tensor.copy_(torch.rand(tensor.shape).to(tensor.dtype))
    return SHARDINGS[how](whole)


def whole_state(rows: int = 7) -> dict[str, torch.Tensor]:
    """The same without shards."""
    torch.manual_seed(8)
    whole = Tower(rows)
    for tensor in whole.buffers():
        tensor.copy_(torch.rand(tensor.shape).to(tensor.dtype))
    return whole.state_dict()


def fill_from_sharded(how: str, as_module: bool) -> None:
    """All of it, from what each rank has of a model that is sharded alike."""
    model = trained(how)
    source: Any = model if as_module else {"model": model.state_dict()}
    of_sharded = tws.WarmStartSettings(source, [".*"])
    fill_both(how, Tower, tws.WarmStartSettings(whole_state(), [".*"]), of_sharded=of_sharded)


def fill_small(how: str) -> None:
    """Tensors of which the first rank has all: they are no less in parts."""
    first, second = (SHARDINGS[how](_Small()) for _ in range(2))
    tws.warm_start(second, first.state_dict())
    for name, tensor in first.state_dict().items():
        assert torch.equal(_here(second.state_dict()[name]), _here(tensor))


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.over = nn.Linear(3, 1), nn.Linear(1, 1)


def fill_renamed(how: str) -> None:
    """Other names, several sources."""
    rules = {"up.weight": "old.weight", "up.bias": "old.bias"}
    state = trained(how).state_dict()
    old = {key.removeprefix("module.").replace("up.", "old."): t for key, t in state.items()}
    whole = {key.replace("up.", "old."): tensor for key, tensor in whole_state().items()}

    def both(source: Any) -> tws.WarmStartSettings:
        return tws.WarmStartSettings(source, ".*", None, rules)

    fill_both(how, Tower, both(whole), of_sharded=both(old))


def fill_by_words(how: str) -> None:
    """Rows that move and stay on their rank: of columns any, of rows those of its half."""
    is_by_columns = how in ("columns", "fsdp_of_columns")
    old = [f"w{number}" for number in range(8)]
    new = [f"w{number}" for number in (2, 0, 9, 1, 5, 4, 7, 8)]
    if is_by_columns:
        new = jobs.NEW_WORDS
    info = tws.VocabInfo(new, -1, 0, old, backup_initializer=nn.init.normal_)

    def both(source: Any) -> tws.WarmStartSettings:
        return tws.WarmStartSettings(source, "table", {"table.weight": info})

    state = trained(how, 8).state_dict()
    make = functools.partial(Tower, rows=len(new))
    seed = jobs.seed_of_this_rank()
    fill_both(how, make, both(whole_state(8)), seed=seed, of_sharded=both(state))


def fill_optimizer(how: str) -> None:
    """An optimizer's state, sharded as its parameters."""
    saved = jobs.trained("Adam")
    first, make = SHARDINGS[how](Tower()), jobs.OPTIMIZERS["Adam"]
    optimizer = make(first.parameters())
    settings = tws.WarmStartSettings(saved, ".*", entry="model")
    tws.warm_start(first, settings, optimizer=optimizer)
    both = {"model": first.state_dict(), "optimizer": optimizer.state_dict()}
    of_sharded = tws.WarmStartSettings(both, ".*", entry="model")
    fill_both(how, Tower, settings, optimizer=make, of_sharded=of_sharded)


def told_to_a_plain_model() -> str:
    """The same of a model that is whole on each rank, of which ranks ask nobody."""
    model = Tower()
    try:
        tws.warm_start(model, trained("fsdp").state_dict())
    except tws.WarmStartError as error:
        return f"{dist.get_rank()}: {error}"
    return ""


def fill_from_itself(how: str) -> None:
    """A model's own shards, two of them exchanged: read before they are overwritten."""
    torch.manual_seed(9)
    model = SHARDINGS[how](_Twins())
    before = {key: _here(tensor) for key, tensor in model.state_dict().items()}
    rules = {"up.weight": "other.weight", "other.weight": "up.weight"}
    settings = tws.WarmStartSettings(model.state_dict(), ".*weight", None, rules)
    tws.warm_start(model, settings)
    after = {key: _here(tensor) for key, tensor in model.state_dict().items()}
    assert torch.equal(after["up.weight"], before["other.weight"])
    assert torch.equal(after["other.weight"], before["up.weight"])


class _Twins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.other = nn.Linear(6, 7, bias=False), nn.Linear(6, 7, bias=False)


def listed() -> tuple[list[int], str]:
    """A sharded state as a checkpoint: the whole's shape, and what reading all of it says."""
    with tws.load_checkpoint(trained("fsdp").state_dict()) as checkpoint:
        shape = list(checkpoint.spec("table.weight").shape)
        try:
            checkpoint.get_tensor("table.weight")
        except tws.UnsupportedError as error:
            return shape, str(error)
    return shape, ""


def _here(tensor: torch.Tensor) -> torch.Tensor:
    local: torch.Tensor = getattr(tensor, "to_local", lambda: tensor)()
    return local.clone()
