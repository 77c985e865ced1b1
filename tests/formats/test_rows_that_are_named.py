"""`get_tensor(key, rows=...)`: a slice, a sequence or a vector, and what is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import torch_warmstart as tws

TABLE = torch.arange(10.0).reshape(5, 2)
READ_ONLY = np.array([1, 4])
READ_ONLY.flags.writeable = False


@pytest.fixture(params=["memory", "file"])
def checkpoint(request, tmp_path):
    if request.param == "memory":
        return tws.load_checkpoint({"w": TABLE, "step": torch.tensor(3)})
    torch.save({"w": TABLE, "step": torch.tensor(3)}, tmp_path / "w.pt")
    return tws.load_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("rows", "numbers"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None), [0, 1, 2, 3, 4]),
        (slice(-2, None), [3, 4]),
        (slice(None, None, -2), [4, 2, 0]),
        (slice(4, 1), []),
        (slice(3, 99), [3, 4]),
        ([3, 0, 3], [3, 0, 3]),
        ((), []),
        (range(2, 4), [2, 3]),
        (READ_ONLY, [1, 4]),
        (torch.tensor([2]), [2]),
    ],
    ids=str,
)
def test_rows_are_those_that_python_would_take(checkpoint, rows, numbers):
    assert checkpoint.get_tensor("w", rows=rows).tolist() == [TABLE[n].tolist() for n in numbers]


@pytest.mark.parametrize(
    "rows", [[5], [-1], [1.0], [True], [[1]], "12", ["a"], 3, [2**70], torch.tensor([1.0])], ids=str
)
def test_what_names_no_rows_is_refused(checkpoint, rows):
    with pytest.raises(tws.SettingsError, match="rows"):
        checkpoint.get_tensor("w", rows=rows)


SPARSE = torch.tensor([0, 2]).to_sparse()


@pytest.mark.parametrize(
    "rows",
    [slice("a"), slice(0, 1.5), slice(0, 2, 0), torch.arange(2, device="meta"), SPARSE],
    ids=["slice of text", "slice of floats", "step of 0", "meta", "sparse"],
)
def test_slices_and_tensors_that_have_no_numbers_are_refused(checkpoint, rows):
    with pytest.raises(tws.SettingsError, match="rows must be"):
        checkpoint.get_tensor("w", rows=rows)


def test_a_scalar_has_no_rows(checkpoint):
    with pytest.raises(tws.SettingsError, match="scalar"):
        checkpoint.get_tensor("step", rows=slice(1))
