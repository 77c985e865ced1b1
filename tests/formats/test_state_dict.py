"""torch states: in memory, in a module, in `.pt` files of either kind; and what is refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formats_helpers import assert_read_or_refused, raw

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingTensorError,
    SettingsError,
    UnsupportedError,
    WarmStartError,
)

OLD_DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
]
NEW_DTYPES = [  # which torch cannot load from its legacy format
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


def counting(*shape: int) -> torch.Tensor:
    count = int(torch.tensor(shape).prod())
    return torch.arange(count, dtype=torch.float32).reshape(shape)


class Runs:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self._path), "w"))


# ---- In memory -------------------------------------------------------------------------------


def test_a_state_dict_is_read_without_copying() -> None:
    weight = counting(3, 2)
    checkpoint = tw.load_checkpoint({"w": weight, "b": counting(2)})

    assert list(checkpoint) == ["w", "b"]
    assert (checkpoint.family, checkpoint.format) == ("torch", "torch state_dict")
    spec = checkpoint.spec("w")
    assert (spec.shape, spec.dtype, spec.stored_dtype) == ((3, 2), torch.float32, "float32")
    assert checkpoint.get_tensor("w").data_ptr() == weight.data_ptr()
    assert checkpoint.get_tensor("w", torch.tensor([2, 0, 2])).tolist() == [[4, 5], [0, 1], [4, 5]]


@pytest.mark.parametrize("dtype", OLD_DTYPES + NEW_DTYPES, ids=str)
def test_rows_of_every_dtype_are_read(dtype: torch.dtype) -> None:
    full = torch.tensor([[0, 1], [1, 1], [1, 0]]).to(dtype)
    rows = tw.load_checkpoint({"x": full}).get_tensor("x", torch.tensor([2, 0]))

    assert rows.dtype == dtype
    assert raw(rows) == raw(torch.tensor([[1, 0], [0, 1]]).to(dtype))


def test_rows_of_a_tensor_with_other_strides_are_read() -> None:
    checkpoint = tw.load_checkpoint({"x": counting(2, 3).t(), "half": counting(2, 3).half().t()})

    assert checkpoint.get_tensor("x", torch.tensor([1])).tolist() == [[1, 4]]
    assert checkpoint.get_tensor("half", torch.tensor([1])).tolist() == [[1, 4]]


def test_a_tensor_that_wants_gradients_comes_detached() -> None:
    tensor = tw.load_checkpoint({"w": torch.nn.Parameter(counting(2))}).get_tensor("w")

    assert not tensor.requires_grad


def test_rows_outside_the_tensor_are_refused() -> None:
    with pytest.raises(
        SettingsError, match="rows lie between 2 and 2, but tensor 'w' has rows 0 to 1"
    ):
        tw.load_checkpoint({"w": counting(2)}).get_tensor("w", torch.tensor([2]))


def test_entries_that_are_no_tensors_are_left_out() -> None:
    state = {"w": counting(2), "epoch": 3, 7: counting(1), "extra": b"bytes", "none": None}

    assert list(tw.load_checkpoint(state)) == ["w"]


def test_an_empty_state_dict_is_told() -> None:
    with pytest.raises(SettingsError, match="<state_dict> is empty: there is no tensor to take"):
        tw.load_checkpoint({})


def test_a_missing_key_is_told_with_near_names() -> None:
    checkpoint = tw.load_checkpoint({"layer.weight": counting(2)})

    assert "layer.bias" not in checkpoint
    with pytest.raises(MissingTensorError, match="Did you mean 'layer.weight'"):
        checkpoint.get_tensor("layer.weigth")


def test_a_state_dict_has_no_checksums_and_no_other_names() -> None:
    checkpoint = tw.load_checkpoint({"w": counting(2)})
    checkpoint.verify("w")

    assert checkpoint.full_names() == {}
    with pytest.raises(MissingTensorError):
        checkpoint.verify("b")


def test_tied_tensors_share_their_storage_and_views_do_not() -> None:
    weight = counting(4, 2)
    checkpoint = tw.load_checkpoint(
        {
            "a": weight,
            "tied": weight,
            "b": weight[:2],
            "t": weight.t(),
            "e": counting(0),
            "f": counting(0),
        }
    )
    storages = {key: checkpoint.spec(key).storage for key in checkpoint}

    assert storages["a"] == storages["tied"]
    assert len({storages["a"], storages["b"], storages["t"]}) == 3
    assert storages["e"] is storages["f"] is None


def test_a_sparse_tensor_can_be_listed() -> None:
    checkpoint = tw.load_checkpoint({"s": torch.eye(3).to_sparse(), "w": counting(2)})

    assert checkpoint.spec("s").shape == (3, 3)
    assert checkpoint.spec("s").storage is None


# ---- Modules ---------------------------------------------------------------------------------


def test_a_module_is_its_state_dict() -> None:
    module = torch.nn.BatchNorm1d(3)
    checkpoint = tw.load_checkpoint(module)

    assert checkpoint.url == "<BatchNorm1d>"
    assert list(checkpoint) == [
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]
    assert checkpoint.get_tensor("weight").data_ptr() == module.weight.data_ptr()


def test_the_versions_of_a_state_dict_are_kept() -> None:
    state = torch.nn.BatchNorm1d(3).state_dict()

    assert tw.load_checkpoint(state).metadata() == {"": {"version": 2}}
    state["more"] = np.zeros(2)
    assert tw.load_checkpoint(state).metadata() == {"": {"version": 2}}
    assert tw.load_checkpoint(dict(state)).metadata() is None


def test_a_module_without_tensors_is_told() -> None:
    with pytest.raises(SettingsError, match="<ReLU> is empty"):
        tw.load_checkpoint(torch.nn.ReLU())


# ---- Files -----------------------------------------------------------------------------------


@pytest.fixture(params=["zip", "legacy"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Saves something as `model.pt` and returns the path."""

    def to_file(contents: Any) -> Path:
        path = tmp_path / "model.pt"
        torch.save(contents, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    to_file.kind = request.param  # type: ignore[attr-defined]
    return to_file


def test_a_file_holds_what_was_saved(save: Any) -> None:
    state = torch.nn.Linear(2, 3).state_dict()
    with tw.load_checkpoint(save(state)) as checkpoint:
        assert {key: checkpoint.get_tensor(key).tolist() for key in checkpoint} == {
            key: value.tolist() for key, value in state.items()
        }
        assert checkpoint.metadata() == {"": {"version": 1}}
        assert checkpoint.url.endswith("model.pt")


def test_a_file_holds_every_dtype_torch_can_save(save: Any) -> None:
    dtypes = OLD_DTYPES + (NEW_DTYPES if save.kind == "zip" else [])
    state = {str(t): torch.tensor([[0, 1], [1, 1], [1, 0]]).to(t) for t in dtypes}
    checkpoint = tw.load_checkpoint(save(state))

    assert list(checkpoint) == list(state)
    for key, full in state.items():
        assert checkpoint.get_tensor(key).dtype == full.dtype
        assert raw(checkpoint.get_tensor(key)) == raw(full)


def test_a_legacy_file_torch_itself_cannot_load_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"x": torch.zeros(2).to(torch.uint16)}, path, _use_new_zipfile_serialization=False)

    with pytest.raises(CorruptCheckpointError, match=r"model\.pt cannot be read as a torch file: "):
        tw.load_checkpoint(path)


def test_tied_tensors_of_a_file_are_still_tied(save: Any) -> None:
    weight = counting(4)
    checkpoint = tw.load_checkpoint(save({"a": weight, "b": weight, "c": weight.clone()}))

    assert checkpoint.spec("a").storage == checkpoint.spec("b").storage
    assert checkpoint.spec("a").storage != checkpoint.spec("c").storage


def test_writing_into_a_mapped_tensor_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": counting(1000)}, path)
    before = path.read_bytes()
    tw.load_checkpoint(path).get_tensor("w").fill_(-1)

    assert path.read_bytes() == before


def test_a_file_name_says_nothing(save: Any, tmp_path: Path) -> None:
    path = save({"w": counting(2)})
    for name in ("checkpoint", "model.ckpt", "weights", "we[i]rd*?"):
        other = path.rename(tmp_path / name)
        assert tw.load_checkpoint(other).get_tensor("w").tolist() == [0, 1]
        path = other


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    save: Any, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    path = save({"w": counting(2), "evil": Runs(ran)})

    message = r"model\.pt holds more than tensors and plain containers, and loading that could run"
    with pytest.raises(UnsupportedError, match=message):
        tw.load_checkpoint(path)
    assert not ran.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_that_would_run_code_does_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Runs(ran)))

    with pytest.raises(WarmStartError):
        tw.load_checkpoint(path)
    assert not ran.exists()


def test_a_pickled_module_is_read_or_refused_with_what_to_do(save: Any) -> None:
    module = torch.nn.Linear(2, 2)
    path = save(module)
    if zipfile.is_zipfile(path):
        assert torch.equal(tw.load_checkpoint(path).get_tensor("bias"), module.bias)
    else:
        with pytest.raises(UnsupportedError, match=r"torch\.save\(model\.state_dict\(\), \.\.\.\)"):
            tw.load_checkpoint(path)


@pytest.mark.parametrize("contents", [[torch.zeros(2)], torch.zeros(2), 5, None], ids=repr)
def test_a_file_without_mapping_is_refused(save: Any, contents: Any) -> None:
    with pytest.raises(
        SettingsError, match=rf"holds a {type(contents).__name__}, not a state_dict"
    ):
        tw.load_checkpoint(save(contents))


@pytest.mark.parametrize("end", [0.2, 0.5, 0.9, 0.99])
def test_a_zip_cut_off_is_told(tmp_path: Path, end: float) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": counting(500)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * end)])

    with pytest.raises(CorruptCheckpointError, match="torch file: not a complete zip file"):
        tw.load_checkpoint(path)


def test_a_zip_of_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")

    with pytest.raises(tw.UnsupportedError, match="zip archive without a file of a known format"):
        tw.load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_of_a_file_is_read_or_an_error_of_ours(save: Any, mask: int) -> None:
    path = save({"w": counting(2), "b": counting(3).half()})
    data = path.read_bytes()
    for at in range(mask % 3, len(data), 3 if len(data) < 1500 else 5):
        path.write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
        assert_read_or_refused(path)


def test_a_file_cut_off_anywhere_is_an_error_of_ours(save: Any) -> None:
    path = save({"w": counting(2), "b": counting(3).half()})
    data = path.read_bytes()
    for length in range(0, len(data), 5):
        path.write_bytes(data[:length])
        with pytest.raises(WarmStartError):
            tw.load_checkpoint(path)


def test_a_masked_array_is_taken_only_where_nothing_of_it_is_missing():
    values = np.ma.array([1.0, 2.0], mask=[False, True], dtype="f4")
    with pytest.raises(tw.SettingsError, match=r"'w' is a masked array .* 1 of 2"):
        tw.load_checkpoint({"w": values})
    whole = tw.load_checkpoint({"w": values.filled(0)})
    assert whole.get_tensor("w").tolist() == [1.0, 0.0]
    unmasked = tw.load_checkpoint({"w": np.ma.array([1.0, 2.0])})
    assert unmasked.get_tensor("w").tolist() == [1.0, 2.0]
