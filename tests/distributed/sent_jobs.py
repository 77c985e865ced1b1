"""What the ranks do in the tests of tensors in memory of which another rank has what one needs."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jobs
import pytest
import torch
import torch.distributed as dist
from new_row_jobs import initializers
from ranks import kill_me
from sharded_models import SHARDINGS, Tower, assert_slices, fill_both
from sharded_source_jobs import trained, whole_state
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import torch_warmstart as tws
from torch_warmstart.execution.ranks import all_to_all
from torch_warmstart.model.sharding import local_tensors

SOON = 8.0  # seconds until a rank that is gone is given up
AT_ONCE = 1.0  # the same, where nobody comes anyway
SMALL = 96  # bytes of a chunk, so that there are many


@contextmanager
def watched(chunk: int = SMALL) -> Iterator[list[tuple[int, int]]]:
    """Within, chunks are small, and their sizes are noted: what is sent, what is got."""
    seen: list[tuple[int, int]] = []
    swap = all_to_all.Exchange._swap

    def note(self: Any, sent: torch.Tensor, got: torch.Tensor, *splits: Any) -> None:
        if sent.dtype == torch.uint8:
            seen.append((sent.numel(), got.numel()))
        swap(self, sent, got, *splits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_to_all, "CHUNK_BYTES", chunk)
        patch.setattr(all_to_all.Exchange, "_swap", note)
        yield seen
    assert all(max(sizes) <= chunk for sizes in seen), seen


def fill_from_another(source: str, how: str) -> int:
    """All of a model that is sharded in one way from one in another; how many bytes came."""
    of_sharded = tws.WarmStartSettings(trained(source).state_dict(), [".*"])
    made, kept = all_to_all.Exchange._made, 0

    def counted(self: Any, want: Any) -> torch.Tensor:
        nonlocal kept
        tensor = made(self, want)
        kept += tensor.nbytes
        return tensor

    with watched() as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_to_all.Exchange, "_made", counted)
        settings = tws.WarmStartSettings(whole_state(), [".*"])
        model, _ = fill_both(how, Tower, settings, of_sharded=of_sharded)
    came = sum(got for _, got in seen)
    own = [local for tensor in model.state_dict().values() for local in local_tensors(tensor)]
    assert came <= kept <= sum(tensor.nbytes for tensor in own)  # of nothing but its own boxes
    return came


def fill_by_words(source: str, how: str, new_rows: str) -> int:
    """Rows and columns by a vocabulary, from and to anywhere, and new ones."""
    make: Any = {
        "zeros": lambda: None,
        "random": lambda: nn.init.normal_,
        **{name: functools.partial(initializers().get, name) for name in initializers()},
    }[new_rows]

    def infos() -> dict[str, Any]:
        words = functools.partial(tws.VocabInfo, jobs.NEW_WORDS, -1, 1, jobs.OLD_WORDS)
        places = (("table.weight", 0), ("up.weight", 1))
        return {n: words(axis=axis, backup_initializer=make()) for n, axis in places}

    def both(state: Any) -> tws.WarmStartSettings:
        return tws.WarmStartSettings(state, "(table|up).weight", infos())

    whole = _wide(7).state_dict()
    state = SHARDINGS[source](_wide(7)).state_dict()
    small = SMALL if new_rows in ("zeros", "random") else 1 << 20
    with watched(small) as seen:
        seed = jobs.seed_of_this_rank()
        fill_both(how, lambda: _Wide(10), both(whole), seed=seed, of_sharded=both(state))
    return sum(got for _, got in seen)


class _Wide(Tower):
    """Its first layer takes as many features as the table has rows."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.up = nn.Linear(rows, 10)


def _wide(rows: int) -> nn.Module:
    torch.manual_seed(8)
    return _Wide(rows)


def fill_of_tensorflow(how: str) -> None:
    """Transposed kernels of which each rank has rows; a model that has rows of their columns."""
    whole = jobs.of_tensorflow(jobs.old_state())
    fill_both(
        how, Tower, tws.WarmStartSettings(whole), of_sharded=tws.WarmStartSettings(_by_rows(whole))
    )


def fill_gates(how: str) -> None:
    """A layout that makes tensors of its own: a kernel of gates in another order."""
    torch.manual_seed(3)
    layer = {
        "up/kernel:0": torch.rand(9, 32),
        "up/recurrent_kernel:0": torch.rand(8, 32),
        "up/bias:0": torch.rand(32),
    }
    of_sharded = tws.WarmStartSettings(_by_rows(layer))
    fill_both(how, _Cell, tws.WarmStartSettings(layer), of_sharded=of_sharded)


class _Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.LSTM(9, 8)


@functools.cache  # groups have threads of their own, and stay until the process ends
def _mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (dist.get_world_size(),))


def _by_rows(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    mesh = _mesh()
    return {key: distribute_tensor(tensor, mesh, [Shard(0)]) for key, tensor in state.items()}


def fill_optimizer(source: str, how: str, name: str) -> None:
    """What an optimizer keeps, for rows that change ranks."""
    saved, make = jobs.trained(name), jobs.OPTIMIZERS[name]
    first = SHARDINGS[source](Tower())
    optimizer = make(first.parameters())
    plain = tws.WarmStartSettings(saved, ".*", entry="model")
    tws.warm_start(first, plain, optimizer=optimizer)
    both = {"model": first.state_dict(), "optimizer": optimizer.state_dict()}
    info = {"table.weight": tws.VocabInfo(jobs.NEW_WORDS, -1, 1, jobs.OLD_WORDS)}
    settings, of_sharded = (
        tws.WarmStartSettings(state, ".*", info, entry="model") for state in (saved, both)
    )
    of_both = functools.partial(Tower, rows=10)
    fill_both(how, of_both, settings, optimizer=make, of_sharded=of_sharded)


DTYPES = (
    torch.float64,
    torch.bfloat16,
    torch.float8_e5m2,
    torch.complex64,
    torch.bool,
    torch.uint8,
    torch.int16,
    torch.int64,
)


class _OfEachDtype(nn.Module):
    def __init__(self, place: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        for number, dtype in enumerate(DTYPES):
            torch.manual_seed(number)
            values = torch.randint(0, 2, (16, 3)).to(dtype)
            self.register_buffer(f"of_{number}", place(values))
            self.register_buffer(f"no_{number}", place(values[:0]))


def fill_dtypes() -> None:
    """Bytes are sent, whatever they mean; tensors without any, too."""
    mesh = _mesh()
    source = _OfEachDtype(lambda tensor: _part_of(tensor, mesh, 1))
    expected = _OfEachDtype(lambda tensor: tensor)
    target = _OfEachDtype(lambda tensor: _part_of(torch.zeros_like(tensor), mesh, 0))
    with watched():
        tws.warm_start(target, tws.WarmStartSettings(source.state_dict(), [".*"]))
    assert assert_slices(target, expected) > 0


def _part_of(tensor: torch.Tensor, mesh: DeviceMesh, dim: int) -> DTensor:
    """A shard of what every rank has, without telling the others of it."""
    parts = [*tensor.chunk(mesh.size(), dim), *[tensor.narrow(dim, 0, 0)] * mesh.size()]
    here = parts[mesh.get_local_rank()].contiguous()
    shape, stride = tensor.shape, tensor.stride()
    return DTensor.from_local(here, mesh, [Shard(dim)], shape=shape, stride=stride)


def fill_copies() -> list[bool]:
    """Plain models, each rank its own, that say who takes part."""
    models = [Tower() for _ in range(2)]
    state = trained("fsdp").state_dict()
    told = []
    for model, group in zip(models, (dist.group.WORLD, None), strict=True):
        try:
            tws.warm_start(model, tws.WarmStartSettings(state, [".*"]), process_group=group)
        except tws.UnsupportedError as error:
            told.append("Pass process_group=" in str(error))
        told.append(all(torch.equal(a, whole_state()[n]) for n, a in model.state_dict().items()))
    return told


def fill_from_rank_1(placement: str) -> None:
    """A model that only one of the ranks has."""
    mesh = DeviceMesh("cpu", [1])
    is_cut = placement == "shard"
    state = {
        key: distribute_tensor(tensor, mesh, [Shard(0) if tensor.ndim and is_cut else Replicate()])
        for key, tensor in whole_state().items()
    }
    of_sharded = tws.WarmStartSettings(state, [".*"])
    fill_both("fsdp", Tower, tws.WarmStartSettings(whole_state(), [".*"]), of_sharded=of_sharded)


def fill_from_two_models() -> None:
    """A part from one, a part from another, each sharded in its own way."""
    first, second = trained("columns").state_dict(), trained("fsdp").state_dict()
    patterns = ("(table|up)", "(norm|down)")
    torch.manual_seed(1)
    model = SHARDINGS["tensor_parallel"](Tower())
    both = zip((first, second), patterns, strict=True)
    tws.warm_start(model, [tws.WarmStartSettings(state, pattern) for state, pattern in both])
    torch.manual_seed(1)
    expected = Tower()
    parameters = dict(expected.named_parameters())
    kept = {n: t for n, t in whole_state().items() if n in parameters}
    expected.load_state_dict(kept, strict=False)
    assert assert_slices(model, expected) > 0


def fill_variously(source: str, how: str) -> None:
    """From a module, into memory first; through hooks; of another dtype; on the meta device."""
    model = trained(source)
    settings = tws.WarmStartSettings(whole_state(), [".*"])
    of_module = tws.WarmStartSettings(model, [".*"])
    fill_both(how, Tower, settings, of_sharded=of_module, staging="memory")
    fill_both(how, jobs._Hooked, settings, of_sharded=of_module)
    low, of_low = (
        tws.WarmStartSettings(
            {key: t.bfloat16() if t.is_floating_point() else t for key, t in state.items()}, [".*"]
        )
        for state in (whole_state(), model.state_dict())
    )
    fill_both(how, Tower, low, of_sharded=of_low)
    with torch.device("meta"):
        made = SHARDINGS[how](Tower())
    tws.warm_start(made, of_module)
    expected = Tower()
    expected.load_state_dict(whole_state())
    assert assert_slices(made, expected) > 0


def fill_tied() -> None:
    """Two names of one sharded tensor are one, on ranks where it is empty, too."""
    torch.manual_seed(3)
    whole = _Tied(7)
    torch.manual_seed(3)
    state = SHARDINGS["fsdp"](_Tied(7)).state_dict()
    info = {"table.weight": tws.VocabInfo(jobs.NEW_WORDS, -1, 1, jobs.OLD_WORDS)}
    settings, of_sharded = (
        tws.WarmStartSettings(source, ".*", info) for source in (whole.state_dict(), state)
    )
    fill_both("fsdp", lambda: _Tied(10), settings, of_sharded=of_sharded)


class _Tied(nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(rows, 6), nn.Linear(6, rows, bias=False)
        self.head.weight = self.table.weight
        self.up = nn.Linear(6, 8)


def fill_from_fsdp1(how: str) -> None:
    """What its wrapper shows as shards, which is a slice of all of a module's parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        whole = Tower()
        whole.load_state_dict(whole_state())
        model = FullyShardedDataParallel(whole, device_id=torch.device("cpu"))
        kind = StateDictType.SHARDED_STATE_DICT
        with FullyShardedDataParallel.state_dict_type(model, kind):
            state = model.state_dict()
    of_sharded = tws.WarmStartSettings(state, [".*"])
    fill_both(how, Tower, tws.WarmStartSettings(whole_state(), [".*"]), of_sharded=of_sharded)


def fill_columns_by_feature(source: str, how: str) -> None:
    """Of concatenated features, and of a wider table."""
    words = tws.VocabInfo(jobs.NEW_WORDS, -1, 1, jobs.OLD_WORDS)
    infos: dict[str, Any] = {
        "table.weight": [words, tws.ClipOrPad(axis=1, backup_initializer=nn.init.uniform_)],
        "up.weight": tws.SegmentInfo({"b": 2, "n": 4, "c": 2}, {"c": 2, "b": 2, "a": 2}),
    }

    def both(state: Any) -> tws.WarmStartSettings:
        return tws.WarmStartSettings(state, "(table|up).weight", infos)

    seed, state = jobs.seed_of_this_rank(), trained(source).state_dict()
    fill_both(how, lambda: Tower(10, 8), both(whole_state()), seed=seed, of_sharded=both(state))


def fill_from_its_own_rows() -> None:
    """A model from itself, its rows in another order: sent before they are overwritten."""
    torch.manual_seed(4)
    model = SHARDINGS["fsdp"](Tower(8))
    whole = {key: _whole(tensor) for key, tensor in model.state_dict().items()}
    words = [f"w{number}" for number in range(8)]
    info = {"table.weight": tws.VocabInfo(words[::-1], -1, 0, words)}
    tws.warm_start(model, tws.WarmStartSettings(model.state_dict(), "table", info))
    assert torch.equal(_whole(model.table.weight.detach()), whole["table.weight"].flip(0))


def rows_that_one_rank_needs() -> None:
    """The others have nothing to ask for: all rows of theirs are new, or their own."""
    words = [f"w{number}" for number in range(8)]
    new = ["w7", "w6", "w1", "w0", "a", "b", "c", "d"]
    state = trained("fsdp", 8).state_dict()

    def both(source: Any) -> tws.WarmStartSettings:
        info = {"table.weight": tws.VocabInfo(new, -1, 0, words)}
        return tws.WarmStartSettings(source, "table", info)

    fill_both("fsdp", lambda: Tower(8), both(whole_state(8)), of_sharded=both(state))


def too_much(limit: int) -> tuple[str, str]:
    """What is said where what others send is more than may be kept."""
    return Scene().told(memory_limit=limit)


def _whole(tensor: Any) -> torch.Tensor:
    return getattr(tensor, "full_tensor", lambda: tensor)().clone()


# -- what goes wrong -------------------------------------------------------------------------------


class Scene:
    """A model on each rank, and another one from which it needs what others have."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model = SHARDINGS["columns"](Tower())
        self.state = trained("fsdp").state_dict()
        self.before = self._bytes()

    def _bytes(self) -> list[torch.Tensor]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return [local.detach().clone() for t in tensors for local in local_tensors(t)]

    def told(self, **more: Any) -> tuple[str, str]:
        """What a warm start raises, and what has become of the model."""
        error = "nothing"
        try:
            tws.warm_start(self.model, tws.WarmStartSettings(self.state, [".*"]), **more)
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
        now = self._bytes()
        if all(torch.equal(a, b) for a, b in zip(now, self.before, strict=True)):
            return error, "as before"
        expected = Tower()
        expected.load_state_dict(whole_state())
        assert_slices(self.model, expected)
        return error, "complete"


def _fail(kind: str) -> None:
    if kind == "killed":
        kill_me()
    if kind == "interrupted":
        raise KeyboardInterrupt
    raise MemoryError("no room")


def fail_at(rank: int, swap: int, kind: str, together: bool) -> list[tuple[str, str]]:
    """One rank fails when something is to be sent, and a second try is well.

    Args:
        rank: Which.
        swap: The how manieth time that something is sent.
        kind: How.
        together: Whether the others send already.
    """
    scene, count = Scene(), 0
    send, meet = all_to_all.Exchange._swap, all_to_all.Agreement.meet

    def swapped(self: Any, *args: Any) -> None:
        nonlocal count
        count += 1
        if dist.get_rank() == rank and count == swap and not together:
            _fail(kind)
        send(self, *args)

    def met(self: Any) -> None:
        meet(self)
        if dist.get_rank() == rank and count == swap and together:
            _fail(kind)

    with pytest.MonkeyPatch.context() as patch, watched():
        patch.setattr(all_to_all.Exchange, "_swap", swapped)
        patch.setattr(all_to_all.Agreement, "meet", met)
        first = scene.told(timeout=SOON)
    return [first, scene.told()] if kind != "killed" else [first]


def killed_in_group(rank: int) -> tuple[str, str]:
    """When the others connect to it."""
    scene, made = Scene(), all_to_all.Agreement.process_group

    def make(self: Any) -> Any:
        if dist.get_rank() == rank:
            kill_me()
        return made(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_to_all.Agreement, "process_group", make)
        return scene.told(timeout=SOON)


def late_on_rank_1() -> list[tuple[str, str]]:
    """One that does not come until it has been given up."""
    scene = Scene()
    meet = all_to_all.Agreement.meet

    def met(self: Any) -> None:
        if dist.get_rank() == 1:
            self._store.wait([self._key("ready")])
        meet(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_to_all.Agreement, "meet", met)
        first = scene.told(timeout=AT_ONCE)
    return [first, scene.told()]
