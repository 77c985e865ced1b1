"""Models and checkpoints of which few people have many: each takes a way of its own."""

from __future__ import annotations

import atexit
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn

import torch_warmstart as tws
from faults.scenes import Plain, Scene
from torch_warmstart import ClipOrPad, SegmentInfo, VocabInfo, WarmStartSettings, init

_WORDS = ["c", "x", "a", "y"]


def rare_scenes() -> list[Scene]:
    """One of each kind."""
    return [
        Scene("leased file", _leased),
        Scene("guarded file", _guarded),
        Scene("mixed rows", _mixed),
        Scene("mixed rows, summed where they go", _mixed_later),
        Scene("meta", _meta),
        Scene("overlapping", _overlapping),
        Scene("rows that are back", _patched),
        Scene("several", _several),
        Scene("sharded", _sharded),
        Scene("own loading", _own),
        Scene("several axes", _axes),
        Scene("staged file", _leased, {"staging": "memory", "memory_limit": 1 << 20}),
        Scene("staged, guarded", _guarded, {"staging": "memory"}),
        Scene("staged, mixed rows", _mixed_later, {"staging": "memory"}),
        Scene("staged, several axes", _axes, {"staging": "memory", "memory_limit": 1 << 20}),
        Scene("staged, rows that are back", _patched, {"staging": "memory"}),
        Scene("staged shards", _sharded, {"staging": "memory"}),
    ]


@functools.cache
def _directory() -> Path:
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    return Path(directory.name)


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {k: v.clone() for k, v in Plain(5).state_dict().items()}


def _info(**more: object) -> dict[str, VocabInfo]:
    return {"words.weight": VocabInfo(_WORDS, -1, 0, list("abcde"), **more)}


def _plan(model, source, *, optimizer=None, info=None, **more):
    settings = WarmStartSettings(source, [".*"], _info() if info is None else info, **more)
    return model, optimizer, tws.plan_warm_start(model, settings, optimizer=optimizer)


def _new(make: Callable[[], nn.Module] = lambda: Plain(4)) -> nn.Module:
    torch.manual_seed(2)
    return make()


def _leased():
    path = _directory() / "model.safetensors"
    if not path.exists():
        safetensors.torch.save_file(_state(), path)
    return _plan(_new(), str(path))


_writers = []  # a file that somebody has open for writing cannot be leased


def _guarded():
    path = _directory() / "model.npz"
    if not path.exists():
        np.savez(path, **{k: v.numpy() for k, v in _state().items()})
        _writers.append(path.open("r+b"))
    return _plan(_new(), str(path))


def _mixed():
    model = _new()
    how = init.alias({"x": "b"}) | init.mean() + init.noise(0.02)
    info = _info(backup_initializer=how)
    return _plan(model, _state(), info=info)


def _mixed_later():
    info = _info(backup_initializer=init.alias({"x": "b"}) | init.mean())
    return _plan(_new(), _state(), info=info)


class _More(Plain):
    """With a layer that the checkpoint lacks."""

    def __init__(self) -> None:
        super().__init__(4)
        self.more = nn.Linear(3, 3)


def _meta():
    with torch.device("meta"):
        model = _More()
    return _plan(model, _state(), on_missing="keep")


class _Two(Plain):
    """With parameters that lie upon each other."""

    def __init__(self) -> None:
        super().__init__(4)
        memory = torch.zeros(6)
        self.one, self.other = nn.Parameter(memory[:4]), nn.Parameter(memory[2:])


def _overlapping():
    whole = torch.arange(6.0)
    return _plan(_new(_Two), {**_state(), "one": whole[:4], "other": whole[2:]})


def _patched():
    older = {"words.weight": torch.full((2, 3), 7.0)}
    return _plan(_new(), _state(), info=_info(fallback=[(older, ["z", "y"])]))


def _axes():
    info = VocabInfo(_WORDS, -1, 0, list("abcde"), backup_initializer=nn.init.ones_)
    features = SegmentInfo({"new": 1, "b": 1, "a": 1}, {"a": 1, "gone": 1, "b": 1}, 1, "keep")
    infos = {"words.weight": [info, features], "out.weight": [ClipOrPad(), features]}
    return _plan(_new(), _state(), info=infos)


def _several():
    model, state = _new(), _state()
    first = {k: v for k, v in state.items() if k.startswith(("words", "out"))}
    rest = {f"old.{k}": v for k, v in state.items() if k not in first}
    rules = {name: f"old.{name}" for name in state if name not in first}
    settings = [
        WarmStartSettings(first, [r"(words|out)\."], _info()),
        WarmStartSettings(rest, [r"(middle|norm)\."], {}, rules),
    ]
    return model, None, tws.plan_warm_start(model, settings)


def _sharded():
    from torch.distributed.tensor import Shard, distribute_module, distribute_tensor
    from torch.distributed.tensor import init_device_mesh as mesh_of

    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        atexit.register(torch.distributed.destroy_process_group)
    mesh = mesh_of("cpu", (1,))

    def shard(name, module, mesh):
        for leaf, tensor in list(module._parameters.items()):
            if tensor is not None and isinstance(module, nn.Linear | nn.Embedding):
                module._parameters[leaf] = nn.Parameter(distribute_tensor(tensor, mesh, [Shard(0)]))

    model = _new()
    for module in (model.words, model.middle, model.out):
        distribute_module(module, mesh, shard)
    return _plan(model, _state())


class _Remade(nn.Linear):
    """Replaces its weight instead of filling it."""

    notes = "as it was"

    def _load_from_state_dict(self, state, prefix, *rest):
        self.bias.data = state.pop(f"{prefix}bias") * 2
        self.notes = "loaded"
        super()._load_from_state_dict(state, prefix, *rest)


class _Own(Plain):
    """Loads itself, with hooks below that rename, drop and add."""

    def __init__(self) -> None:
        super().__init__(4, _Remade)
        self.out.notes = "as it was"
        self.norm.register_load_state_dict_pre_hook(_rename)
        self.out.register_load_state_dict_pre_hook(_drop)
        self.register_load_state_dict_post_hook(_look)

    def load_state_dict(self, state, *args, **kwargs):
        self.out.notes = "loaded"
        return super().load_state_dict(state, *args, **kwargs)


def _rename(module, state, prefix, *rest):
    state[f"{prefix}bias"], state[f"{prefix}weight"] = (
        state.pop(f"{prefix}weight"),
        state.pop(f"{prefix}bias"),
    )


def _drop(module, state, prefix, *rest):
    del state[f"{prefix}weight"]


def _look(module, keys):
    module.norm.running_mean.add_(1)


def _own():
    return _plan(_new(_Own), _state())
