"""HDF5 that Keras has not written: whose layouts its tensors have is read from their names."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _model() -> nn.Sequential:
    """Squares and cubes, so that another layout's numbers fit as well."""
    return nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 3), nn.LSTM(4, 1))


def _write(path: Path, state: dict[str, torch.Tensor], separator: str) -> str:
    with h5py.File(path, "w") as file:
        for name, tensor in state.items():
            file[name.replace(".", separator)] = tensor.numpy()
    return str(path)


@pytest.mark.parametrize("separator", [".", "/"])
def test_a_state_dict_in_hdf5_is_laid_out_as_torch_does(tmp_path: Path, separator: str) -> None:
    source, model = _model(), _model()
    path = _write(tmp_path / "state.h5", source.state_dict(), separator)
    report = tws.warm_start(model, tws.WarmStartSettings(path, [".*"]))
    assert {account.state for account in report.variables} <= {"copied", "renamed"}
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_kernels_in_hdf5_are_laid_out_as_keras_does(tmp_path: Path) -> None:
    kernel = np.arange(9, dtype="f4").reshape(3, 3)
    with h5py.File(tmp_path / "kernels.h5", "w") as file:
        file["fc/kernel:0"], file["fc/bias:0"] = kernel, np.ones(3, "f4")
    model = nn.ModuleDict({"fc": nn.Linear(3, 3)})
    tws.warm_start(model, str(tmp_path / "kernels.h5"))
    assert torch.equal(model["fc"].weight, torch.from_numpy(kernel.T.copy()))


@pytest.mark.parametrize("mark", ["layer_names", "weight_names0", "keras_version", "nb_layers"])
def test_what_keras_says_of_its_file_counts_more_than_names(tmp_path: Path, mark: str) -> None:
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file.attrs[mark] = [b"fc"]
        file["fc/weight"] = np.ones((2, 3), "f4")
    with tws.load_checkpoint(tmp_path / "keras.h5") as checkpoint:
        assert checkpoint.family == "tensorflow"
