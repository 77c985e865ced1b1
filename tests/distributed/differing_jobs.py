"""What the ranks do in tests of ranks that differ: in what they hold, state, or draw."""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import torch_warmstart as tws
from torch_warmstart.model.sharding import local_tensors

SOON = 20.0  # seconds that a rank waits for another one, which comes


@functools.cache  # groups have threads of their own, and stay until the process ends
def mesh() -> DeviceMesh:
    """All ranks in a row."""
    return init_device_mesh("cpu", (dist.get_world_size(),))


def placed(tensor: torch.Tensor, *placements: Any) -> DTensor:
    """A tensor on all ranks."""
    return distribute_tensor(tensor, mesh(), placements)


def bits(model: nn.Module) -> list[torch.Tensor]:
    """What is here of a model."""
    tensors: list[Any] = [*model.parameters(), *model.buffers()]
    local = (t.to_local() if isinstance(t, DTensor) else t for t in tensors)
    return [tensor.detach().clone() for tensor in local]


def told(model: nn.Module, settings: tws.WarmStartSettings, **more: Any) -> str:
    """What a warm start raises; that nothing has been changed then, or "" that it is well."""
    before = bits(model)
    try:
        tws.warm_start(model, settings, timeout=SOON, **more)
    except tws.WarmStartError as error:
        assert all(map(torch.equal, before, bits(model))), "it has been changed"
        return f"{type(error).__name__}: {error}"
    return ""


def is_alike(tensor: torch.Tensor) -> bool:
    """Whether a plain tensor is the same on all ranks."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, tensor.detach())
    return all(torch.equal(found[0], other) for other in found)


# -- models on meta --------------------------------------------------------------------------------


class _Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 4)


def _by_rows_and_columns(model: _Layers) -> nn.Module:
    """The bias of a layer that is cut by columns is on all ranks."""
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    return parallelize_module(model, mesh(), plan)


def _but_for_a_bias(model: _Layers) -> Any:
    """A plain bias in a layer that is cut."""
    return fully_shard(model, ignored_params={model.down.bias})


def initialise_on_meta(how: str) -> None:
    """What all ranks have alike is initialised alike, and shards are not."""
    ways: dict[str, Any] = {"tensor parallel": _by_rows_and_columns, "ignored": _but_for_a_bias}
    with torch.device("meta"):
        model = ways[how](_Layers())
    torch.manual_seed(dist.get_rank())
    state = {"up.weight": torch.ones(8, 6), "up.bias": torch.ones(8)}
    tws.warm_start(model, tws.WarmStartSettings(state, [".*"], on_missing="keep"))
    down: Any = model.down
    (bias,), weight = local_tensors(down.bias), down.weight.full_tensor()
    assert is_alike(bias)
    assert len(weight.unique()) == weight.numel()
    assert 0 < weight.abs().max() <= 8**-0.5


# -- what lies on ranks ----------------------------------------------------------------------------


def fill_from_two_divisions() -> str:
    """The first rank has rows of a tensor, the others columns; as many elements as it has."""
    whole = torch.arange(1.0, 5.0).view(2, 2)
    if dist.get_rank():
        dim, here = 1, whole[:, 1:].contiguous()
    else:
        dim, here = 0, whole[:1].contiguous()
    state: dict[str, torch.Tensor] = {
        "weight": DTensor.from_local(here, mesh(), [Shard(dim)], shape=whole.shape, stride=(2, 1)),
        "other": placed(torch.zeros(2, 2, 2), Shard(0)),
    }
    model = nn.Linear(2, 2, bias=False)
    model.register_buffer("other", torch.ones(2, 2, 2))
    settings = tws.WarmStartSettings(state, [".*"])
    return told(model, settings, process_group=dist.group.WORLD)


def fill_uneven(is_source: bool) -> str:
    """Two rows on the first rank, where the placements mean four."""
    count = 2 if dist.get_rank() == 0 else 5
    local, shape = torch.zeros(count, 2), torch.Size([7, 2])
    odd = DTensor.from_local(local, mesh(), [Shard(0)], shape=shape, stride=(2, 1))
    model, state = nn.Linear(2, 7, bias=False), {"weight": torch.ones(7, 2)}
    if is_source:
        model.weight = nn.Parameter(placed(torch.zeros(7, 2), Shard(1)))
        state = {"weight": odd}
    else:
        model.weight = nn.Parameter(odd)
    return told(model, tws.WarmStartSettings(state, [".*"]))


# -- what ranks state ------------------------------------------------------------------------------

_OLD = {"0.weight": torch.arange(12.0).view(3, 4)}
_LAYER = {"1.weight": torch.arange(8.0).view(2, 4), "1.bias": torch.ones(2)}
_BOTH = {**_OLD, **_LAYER}


def _told(info: Any = None, sources: Any = _BOTH) -> str:
    """What comes of a table that all ranks have all of; else it is the same on all."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))
    model[0].weight = nn.Parameter(placed(model[0].weight.detach(), Replicate()))
    settings: Any = tws.WarmStartSettings(
        sources, ".*", None if info is None else {"0.weight": info}
    )
    if isinstance(sources, list):
        both = zip(sources, ("0", "1"), strict=True)
        settings = [tws.WarmStartSettings(source, pattern) for source, pattern in both]
    said = told(model, settings)
    assert said or is_alike(local_tensors(model[0].weight)[0])
    return said


def _words(new: Any = ("a", "z", "b"), **more: Any) -> tws.VocabInfo:
    return tws.VocabInfo([*new], -1, 0, ["a", "b", "c"], **more)


def state_other_initialisers(folder: str) -> list[str]:
    """Whatever an initialiser is told is the same on all ranks, or refused."""
    rank, words, (a, z) = dist.get_rank(), ["a", "b", "z"], torch.eye(2)
    paths = [os.path.join(folder, f"{name}{rank}.txt") for name in ("one", "other")]
    for path, last in zip(paths, (8, 8 + rank), strict=True):
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"a 1 2 3 4\nz 5 6 7 {last}\n")
    generator = None if rank else torch.Generator()
    vectors = functools.partial(tws.init.vectors, align=None)
    others: list[Any] = [
        vectors((words, torch.full((3, 4), 1.0 + rank))),
        vectors((["a", "z", "b"] if rank else words, torch.arange(12.0).view(3, 4))),
        vectors(paths[1]),
        tws.init.similar((words, torch.stack([a, z, z + rank])), k=1),
        tws.init.normal(scale=1.0 + rank),
        tws.init.mean(of="all") + tws.init.noise(0.1 + rank),
        tws.init.alias({"z": "a" if rank else "b"}),
        functools.partial(nn.init.normal_, std=1.0 + rank),
    ]
    alike: list[Any] = [
        vectors(paths[0]),  # of a place of its own on each rank
        tws.init.similar((words, torch.stack([a, z, z])), k=1),
        tws.init.normal(cov="full") | tws.init.mean(of="all"),
        functools.partial(functools.partial(nn.init.uniform_, a=-1.0), b=3.0),
        _Own(),
    ]
    for initializer in alike:
        assert not _told(_words(backup_initializer=initializer))
    told = [_told(_words(backup_initializer=initializer)) for initializer in others]
    drawn = _words(backup_initializer=nn.init.normal_, generator=generator)
    return [*told, _told(drawn)]


class _Own:
    """What it is called by itself is another thing on each rank: its address."""

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.normal_()


def state_other_words() -> list[str]:
    """New rows stand for the same on all ranks, whatever they begin with."""
    rank = dist.get_rank()
    assert not _told(_words(["a", "y", "x"]))
    columns = {"f": _words(["a", "y", f"x{rank}"]), "g": 1}
    segments = tws.SegmentInfo(columns, {"f": 3, "g": 1})
    wide = tws.WarmStartSettings(_LAYER, "1.weight", {"1.weight": segments})
    layer = nn.Sequential(nn.Identity(), nn.Linear(4, 2))
    layer[1].bias = nn.Parameter(placed(layer[1].bias.detach(), Replicate()))
    return [
        _told(_words(["a", "x", "y"] if rank else ["a", "y", "x"])),
        told(layer, wide),
    ]


def take_from_others() -> list[str]:
    """What older checkpoints and memory hold is the same on all ranks, or refused."""
    rank = dist.get_rank()
    old, edited = {"0.weight": torch.arange(8.0).view(2, 4)}, {**_LAYER}
    assert not _told(_words(fallback=[(old, ["x", "z"])]))
    edited["1.weight"] = edited["1.weight"].clone()
    edited["1.weight"][1, 2] += rank
    return [
        _told(_words(fallback=[({"0.weight": old["0.weight"] + rank}, ["x", "z"])])),
        _told(_words(fallback=[(old, ["z", "x"] if rank else ["x", "z"])])),
        _told(None, {**_OLD, **edited}),
    ]


def take_from_file_and_memory(path: str) -> str:
    """Of several sources one in memory is another one on the second rank."""
    assert not _told(None, [path, _LAYER])
    return _told(None, [path, {**_LAYER, "1.bias": torch.full((2,), float(dist.get_rank()))}])


# -- who takes part --------------------------------------------------------------------------------


@functools.cache
def _first_alone() -> Any:
    return dist.new_group([0]), DeviceMesh("cpu", [0])


def start_with_the_first_alone() -> list[str]:
    """A group, and a mesh, that only the first rank is in."""
    group, first = _first_alone()
    model = nn.Linear(2, 2)
    on_first = nn.Linear(2, 2)
    on_first.bias = nn.Parameter(distribute_tensor(torch.zeros(2), first, [Shard(0)]))
    settings = tws.WarmStartSettings({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, [".*"])
    return [
        told(model, settings, process_group=group),
        told(on_first, settings),
        told(on_first, settings, process_group=dist.group.WORLD),
    ]


def warn_of_copies() -> list[list[str]]:
    """What is warned of where each rank draws new rows of a plain table for itself."""
    words = functools.partial(tws.VocabInfo, ["a", "z", "b"], -1, 0, ["a", "b", "c"])
    table = nn.Sequential(nn.Embedding(3, 4))
    said = []
    for initializer in (tws.init.normal(), nn.init.normal_, tws.init.mean(of="all")):
        info = words(backup_initializer=initializer)
        settings = tws.WarmStartSettings(_OLD, ".*", {"0.weight": info})
        report = tws.warm_start(table, settings)
        changed = tws.change_vocabulary(table, {"0.weight": info})
        hints = [n.hint for r in (report, changed) for n in r.notes]
        said.append([hint for hint in hints if hint.startswith("If there are copies")])
    return said


class _Forgetful(nn.Module):
    """It initialises one of two parameters that are too small for all ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.left = nn.Parameter(torch.ones(1, 4)), nn.Parameter(torch.ones(1, 4))

    def reset_parameters(self) -> None:
        self.made.data.normal_()


def leave_on_meta() -> tuple[bool, bool, list[str]]:
    """What stays on meta, and what is said of it, where the first rank has all of it."""
    with torch.device("meta"):
        model = nn.Sequential(_Forgetful(), nn.Linear(4, 4))
    fully_shard(model)
    state = {"1.weight": torch.ones(4, 4), "1.bias": torch.ones(4)}
    report = tws.warm_start(model, tws.WarmStartSettings(state, [".*"], on_missing="keep"))
    codes = [note.code for note in report.notes if note.code == "left-on-meta"]
    layer: Any = model[0]
    return layer.made.is_meta, layer.left.is_meta, codes


@functools.cache
def _in_reverse() -> DeviceMesh:
    return DeviceMesh("cpu", [*range(dist.get_world_size())][::-1])


def fill_on_a_mesh_in_reverse() -> tuple[list[str], tuple[list[float], list[int]]]:
    """The ranks of its groups are sorted; what is cut along it is in another order."""

    def cut(tensor: torch.Tensor, *placements: Any) -> DTensor:
        return distribute_tensor(tensor, _in_reverse(), placements, src_data_rank=None)

    model, copied = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    model.weight = nn.Parameter(cut(torch.zeros(2, 2), Shard(0)))
    copied.weight = nn.Parameter(cut(torch.zeros(2, 2), Replicate()))
    plain = tws.WarmStartSettings({"weight": torch.eye(2)}, [".*"])
    of_shards = tws.WarmStartSettings({"weight": cut(torch.eye(2), Shard(0))}, [".*"])
    said = [told(model, plain), told(copied, of_shards), told(copied, plain)]
    numbers = cut(torch.arange(2.0), Shard(0))
    here: Any = numbers
    (chunk,) = here.__create_chunk_list__()
    offsets: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(offsets, chunk.offsets[0])
    return said, (numbers.full_tensor().tolist(), offsets)
