"""Names with more digits than Python turns into a number (4,300) are names like others."""

from __future__ import annotations

import contextlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import v1_writer
from bundle_writer import write_random_bundle
from safetensors.torch import save_file
from torch import nn
from torch.distributed import checkpoint as dcp

import torch_warmstart as tws
from torch_warmstart.cli import main
from torch_warmstart.layouts.named import named_layout, stacked_row

MANY = "9" * 4400
SHAPES = {
    **{f"block_{MANY}{at}/kernel": (2, 3) for at in range(3)},
    **{f"block_{MANY}{at}/bias": (3,) for at in range(3)},
    f"block_{MANY}0/kernel/Adam_{MANY}": (2, 3),
    f"block_{MANY}0/kernel/Adam": (2, 3),
    f"block_{MANY}0/kernel/Adam_1": (2, 3),
    f"beta1_power_{MANY}": (),
    f"layers/dense_{MANY}/vars/{MANY}": (2, 3),
    f"optimizer/vars/{MANY}": (2, 3),
    f"lstm_cell_{MANY}/kernel": (2, 12),
    f"optimizer.state.{MANY}.exp_avg": (2, 3),
    f"rnn/multi_rnn_cell/cell_{MANY}/lstm_cell/kernel": (4, 8),
    f"blocks.{MANY}.weight": (3, 2),
}


def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.rand(shape) for name, shape in SHAPES.items()}


def in_safetensors(folder: Path) -> Path:
    save_file(tensors(), folder / "c.safetensors")
    return folder / "c.safetensors"


def in_torch(folder: Path) -> Path:
    torch.save(tensors(), folder / "c.pt")
    return folder / "c.pt"


def in_old_torch(folder: Path) -> Path:
    torch.save(tensors(), folder / "c.pt", _use_new_zipfile_serialization=False)
    return folder / "c.pt"


def in_training_torch(folder: Path) -> Path:
    state = {"state": {0: {"exp_avg": torch.zeros(2, 3)}, MANY: {"step": torch.ones(())}}}
    groups = {"param_groups": [{"params": [0, MANY]}]}
    torch.save({"model": tensors(), "optimizer": {**state, **groups}}, folder / "c.pt")
    return folder / "c.pt"


def in_npz(folder: Path) -> Path:
    np.savez(folder / "c.npz", **{k.replace("/", "."): v.numpy() for k, v in tensors().items()})
    return folder / "c.npz"


def in_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "c.h5", "w") as file:
        for name, tensor in tensors().items():
            if name.rpartition("/")[0] not in SHAPES:
                file[name] = tensor.numpy()
    return folder / "c.h5"


def in_tf2(folder: Path) -> Path:
    write_random_bundle(str(folder / "c.ckpt"), SHAPES)
    return folder / "c.ckpt"


def in_tf1(folder: Path) -> Path:
    written = [
        v1_writer.whole(name, v1_writer.DType.FLOAT, shape, list(range(int(np.prod(shape)))))
        for name, shape in SHAPES.items()
    ]
    v1_writer.write_v1(folder / "c.ckpt", written)
    return folder / "c.ckpt"


def in_dcp(folder: Path) -> Path:
    dcp.save(tensors(), checkpoint_id=folder / "dcp")
    return folder / "dcp"


def make_model() -> nn.Module:
    model = nn.Module()
    for at in range(3):
        model.add_module(f"block_{MANY}{at}", nn.Linear(2, 3))
    model.add_module(f"other_{MANY}", nn.Linear(2, 3))
    model.add_module(f"enc_{MANY}", nn.LSTM(2, 3))
    model.cells = nn.Module()
    model.cells.register_parameter(f"weight_ih_l{MANY}", nn.Parameter(torch.zeros(3, 2)))
    model.blocks = nn.ModuleDict({MANY: nn.Linear(2, 3, bias=False)})
    return model


WRITERS = [
    in_safetensors,
    in_torch,
    in_old_torch,
    in_training_torch,
    in_npz,
    in_hdf5,
    in_tf2,
    in_tf1,
    in_dcp,
]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("write", WRITERS)
def test_a_checkpoint_with_such_names_is_planned(tmp_path: Path, write, capsys) -> None:
    path = write(tmp_path)
    with tws.load_checkpoint(path) as checkpoint:
        assert any(MANY in key for key in checkpoint)
    settings = tws.WarmStartSettings(path, [".*"], on_missing="keep", on_mismatch="keep")
    for optimizer in (torch.optim.Adam, torch.optim.SGD):
        model = make_model()
        with contextlib.suppress(tws.WarmStartError):  # what is there is no optimizer's whole state
            plan = tws.plan_warm_start(
                model, settings, optimizer=optimizer(model.parameters(), lr=0.1)
            )
            assert MANY in str(plan)
    report = tws.warm_start(make_model(), settings)
    assert MANY in str(report)
    assert str(tws.suggest_names(make_model(), path))
    assert main(["inspect", str(path), "--sort", "size"]) == 0
    assert MANY in capsys.readouterr().out


def test_such_a_number_in_a_layout_is_an_unknown_layout() -> None:
    assert stacked_row(f"stacked[{MANY}]") is None
    with pytest.raises(tws.SettingsError, match=r"depthwise\[9"):
        named_layout(f"depthwise[{MANY}]")
