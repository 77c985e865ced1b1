"""What the ranks do in TorchRec's tests."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torchrec_models import Recommender, assert_slices, batch, pieces, same, sharded

import torch_warmstart as tws

WAIT = 60  # seconds, for a rank that has failed
OLD = [f"w{number}" for number in range(7)]
NEW = ["w6", "new", "w0", "w3", "newer", "w2", "w5", "newest", "w1"]


def old_state() -> dict[str, torch.Tensor]:
    """A trained recommender without shards, the same on every rank."""
    return same(Recommender).state_dict()


def _words(**more: Any) -> tws.VocabInfo:
    return tws.VocabInfo(NEW, -1, 1, OLD, **more)


def fill_dtensors(way: str) -> int:
    """The same of a model that shows its tables as DTensors."""
    fill_plainly(way, is_dtensor=True)
    return fill_fused(way, "RowWiseAdagrad", is_dtensor=True)


def fill_plainly(way: str, *, is_dtensor: bool = False) -> None:
    """All of it by its own names."""
    whole, model = Recommender(), sharded(Recommender(), way, is_dtensor=is_dtensor)
    settings = tws.WarmStartSettings(old_state(), [".*"])
    tws.warm_start(whole, settings)
    report = tws.warm_start(model, settings)
    assert [a.name for a in report.variables] == [name for name, _ in whole.named_parameters()]
    assert {a.state for a in report.variables} == {"copied"}
    assert assert_slices(model, whole) > 0
    assert torch.equal(model(batch()), whole(batch()))  # the kernels have it


def fill_with_vocabulary(way: str) -> None:
    """Rows that move, and random new ones, with unequal seeds."""
    infos = {
        f"{path}.{name}.weight": _words(backup_initializer=torch.nn.init.normal_)
        for path, names in (("ebc.embedding_bags", ("t0", "t1")), ("ec.embeddings", ("e0",)))
        for name in names
    }
    settings = tws.WarmStartSettings(old_state(), ".*(t0|t1|e0).*", infos)
    whole, model = Recommender(10), sharded(Recommender(10), way)
    with torch.no_grad():
        for name, value in old_of(10).items():
            whole.get_parameter(name).copy_(value)
        for name, value in model.state_dict().items():
            for box, piece in pieces(value):
                piece.copy_(box.of(old_of(10)[name]))
    torch.manual_seed(2)
    tws.warm_start(whole, settings)
    torch.manual_seed(2 + dist.get_rank())
    tws.warm_start(model, settings)
    assert assert_slices(model, whole) > 0


@functools.cache
def old_of(rows: int) -> dict[str, torch.Tensor]:
    """What models begin with, the same for all."""
    return same(functools.partial(Recommender, rows)).state_dict()


def saved_of_kernels(optimizer: str, cuts: int) -> dict[str, object]:
    """A state as TorchRec's optimizers save it: by name, a slot under its table's name."""
    torch.manual_seed(4)
    names = [name for name in old_state() if not name.startswith("over")]
    state = {}
    for name in names:
        table = name.split(".")[-2]
        blocks = cuts if table == "t0" else 1
        shape = (7, 8) if optimizer == "Adagrad" else (blocks * 7,)
        state[name] = {f"{table}.momentum1": torch.rand(shape)}
    return {"model": old_state(), "optimizer": {"state": state}}


def fill_fused(way: str, optimizer: str, *, is_dtensor: bool = False) -> int:
    """What kernels keep, compared with a plain gather of each block of rows; how much there is."""
    model = sharded(Recommender(10), way, optimizer, is_dtensor=is_dtensor)
    cuts = 2 if way in ("column_wise", "grid") else 1  # of columns
    saved: Any = saved_of_kernels(optimizer, cuts)
    names = [name for name in old_state() if not name.startswith("over")]
    infos = {name: _words() for name in names}
    settings = tws.WarmStartSettings(saved, ".*", infos, entry="model")
    plan = tws.plan_warm_start(model, settings, optimizer=model.fused_optimizer)
    planned = [item.name for item in plan.items if item.name.endswith("/momentum1")]
    of_kernels = [name for name in names if way != "data_parallel" or ".t0." not in name]
    assert sorted(planned) == sorted(f"{name}/momentum1" for name in of_kernels), planned
    tws.warm_start(model, settings, optimizer=model.fused_optimizer)
    kept = model.fused_optimizer.state_dict()["state"]
    count = 0
    for name, state in kept.items():
        (entry, value), before = *state.items(), saved["optimizer"]["state"][name]
        wanted = _moved(before[entry], 7)
        assert tuple(value.shape) == tuple(wanted.shape)
        for box, piece in pieces(value):
            assert torch.equal(piece, box.of(wanted)), (name, box, piece, box.of(wanted))
            count += box.numel
    return count


def refuse_lars() -> str:
    """What is said where the kernels' optimizer is one whose state is not known."""
    model = sharded(Recommender(7), "row_wise", "Adagrad")
    with mock.patch(
        "torch_warmstart.model.sharding.torchrec.fused_kind_of", return_value="lars_sgd"
    ):
        try:
            tws.plan_warm_start(model, _from_kernels("Adagrad"), optimizer=model.fused_optimizer)
        except tws.UnsupportedError as error:
            return str(error)
    return ""


def move_columns_of_cuts() -> str:
    """What is said of sums for each cut where columns go from one cut to another."""
    model = sharded(Recommender(7), "column_wise", "RowWiseAdagrad")
    info = tws.SegmentInfo({"b": 4, "a": 4}, {"a": 4, "b": 4})
    settings = tws.WarmStartSettings(
        saved_of_kernels("RowWiseAdagrad", 2),
        ".*",
        {"ebc.embedding_bags.t0.weight": info},
        entry="model",
    )
    try:
        tws.plan_warm_start(model, settings, optimizer=model.fused_optimizer)
    except tws.PlanError as error:
        return str(error)
    return ""


def plan_from(saved: str, adds: str = "") -> tuple[str, list[str], list[str]]:
    """Adagrad's kernels planned from a saved state: problems, warnings, what is not certain."""
    source: Any = saved_of_kernels(saved, 1)
    for name, state in source["optimizer"]["state"].items() if adds else ():
        state[f"{name.split('.')[-2]}.{adds}"] = torch.zeros(7, 8)
    model = sharded(Recommender(7), "table_wise", saved)
    wanted = tws.WarmStartSettings(source, ".*", entry="model")
    try:
        plan = tws.plan_warm_start(model, wanted, optimizer=model.fused_optimizer)
    except tws.PlanError as error:
        return str(error), [], []
    return "", [note.code for note in plan.notes if note.severity == "warning"], [*plan.inferred]


def _from_kernels(optimizer: str) -> tws.WarmStartSettings:
    return tws.WarmStartSettings(saved_of_kernels(optimizer, 1), ".*", entry="model")


def _moved(before: torch.Tensor, rows: int) -> torch.Tensor:
    """The rows in their new order, block by block; new ones are zeros."""
    blocks = []
    for block in before.split(rows):
        made = torch.zeros(10, *block.shape[1:])
        for at, word in enumerate(NEW):
            if word in OLD:
                made[at] = block[OLD.index(word)]
        blocks.append(made)
    return torch.cat(blocks)


def fill_from_directory(way: str, folder: str) -> int:
    """What one such model saved, another takes: what is here of tables and of kernels' state."""
    first = _trained(way)
    both = {"model": first.state_dict(), "optimizer": first.fused_optimizer.state_dict()}
    dcp.save(both, checkpoint_id=folder)
    return _filled_as(first, way, folder)


def fill_from_memory(way: str, is_dtensor: bool) -> int:
    """The tables, from what each rank has in memory: of kernels' state others know nothing."""
    first = _trained(way, is_dtensor=is_dtensor)
    second = sharded(Recommender(7), way, is_dtensor=is_dtensor)
    tws.warm_start(second, first.state_dict())
    return _compared(first.state_dict(), second.state_dict())


def fill_from_another_way(source: str, way: str, is_dtensor: bool) -> int:
    """Tables whose rows and columns lie elsewhere, in their places and by a vocabulary."""
    first = sharded(Recommender(7), source, is_dtensor=is_dtensor)
    tws.warm_start(first, tws.WarmStartSettings(old_state(), [".*"]))
    second = sharded(Recommender(7), way)
    tws.warm_start(second, first.state_dict(), timeout=WAIT)
    whole = Recommender()
    whole.load_state_dict(old_state())
    count = assert_slices(second, whole)
    assert torch.equal(second(batch()), whole(batch()))  # the kernels have it
    tables = [name for name in old_state() if not name.startswith("over")]
    infos = {name: _words(backup_initializer=torch.nn.init.ones_) for name in tables}

    def both(state: Any) -> tws.WarmStartSettings:
        return tws.WarmStartSettings(state, ".*", infos)

    whole, third = Recommender(10), sharded(Recommender(10), way)
    tws.warm_start(whole, both(old_state()))
    tws.warm_start(third, both(first.state_dict()), timeout=WAIT)
    return count + assert_slices(third, whole)


def _trained(way: str, *, is_dtensor: bool = False) -> Any:
    make = functools.partial(Recommender, 7)
    model = sharded(same(make), way, "RowWiseAdagrad", is_dtensor=is_dtensor)
    torch.manual_seed(6)
    for state in model.fused_optimizer.state_dict()["state"].values():
        for value in state.values():
            for _, piece in pieces(value):
                piece.uniform_()
    return model


def _filled_as(first: Any, way: str, source: Any, *, is_dtensor: bool = False) -> int:
    second = sharded(Recommender(7), way, "RowWiseAdagrad", is_dtensor=is_dtensor)
    settings = tws.WarmStartSettings(source, ".*", entry="model")
    tws.warm_start(second, settings, optimizer=second.fused_optimizer)
    count = _compared(first.state_dict(), second.state_dict())
    others = second.fused_optimizer.state_dict()["state"]
    for name, state in first.fused_optimizer.state_dict()["state"].items():
        count += _compared(state, others[name])
    return count


def _compared(one: dict[str, Any], other: dict[str, Any]) -> int:
    assert set(one) == set(other)
    count = 0
    for name, value in one.items():
        for (box, mine), (_, its) in zip(pieces(value), pieces(other[name]), strict=True):
            assert torch.equal(mine, its), (name, box)
            count += box.numel
    return count


def change_spread_tables() -> list[str]:
    """What is said where the vocabulary of a spread table is to change."""
    model = sharded(same(Recommender), "row_wise")
    info = tws.VocabInfo(list("abc"), old_vocab=list("abcdefg"))
    try:
        tws.change_vocabulary(model, {"ebc.embedding_bags.t0.weight": info})
    except tws.PlanError as error:
        return [problem.text for problem in error.problems]
    return []
