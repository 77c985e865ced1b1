"""A record of a torch file that is shorter than its tensors is no place to read on from."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch

import torch_warmstart as tws


def _packed_anew(path, *, cut=None, compression=zipfile.ZIP_STORED):
    """Saves two tensors; `cut` maps the end of a record's name to the bytes that are left of it."""
    saved = io.BytesIO()
    torch.save({"a": torch.arange(100.0), "b": torch.full((100,), 7, dtype=torch.int16)}, saved)
    with zipfile.ZipFile(saved) as read, zipfile.ZipFile(path, "w", compression) as written:
        for name in read.namelist():
            kept = next((n for end, n in (cut or {}).items() if name.endswith(end)), None)
            written.writestr(name, read.read(name)[:kept])
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("record", "left", "takes"), [("data/0", 396, 400), ("data/0", 0, 400), ("data/1", 199, 200)]
)
def test_a_short_record_is_damage(tmp_path, compression, record, left, takes):
    path = _packed_anew(tmp_path / "m.pt", cut={record: left}, compression=compression)
    with pytest.raises(tws.CorruptCheckpointError) as raised:
        tws.load_checkpoint(path)
    assert f"{record}' has {left} bytes, and the tensors on it take {takes}" in str(raised.value)


def test_a_file_packed_anew_is_read(tmp_path):
    with tws.load_checkpoint(_packed_anew(tmp_path / "m.pt")) as checkpoint:
        assert torch.equal(checkpoint.get_tensor("a"), torch.arange(100.0))
        assert (checkpoint.get_tensor("b") == 7).all()


def test_every_storage_is_counted_in_its_own_size(tmp_path):
    """Also those of dtypes that torch saves as bytes, and one that lies under several tensors."""
    dtypes = (torch.float64, torch.bfloat16, torch.bool, torch.complex64, torch.uint16)
    base = torch.arange(12.0)
    saved = {str(dtype): torch.ones(3).to(dtype) for dtype in (*dtypes, torch.float8_e4m3fn)}
    saved |= {"low": base[:3], "high": base[9:], "none": torch.empty(0)}
    torch.save(saved, tmp_path / "m.pt")
    with tws.load_checkpoint(tmp_path / "m.pt") as checkpoint:
        assert set(checkpoint) == set(saved)
        assert torch.equal(checkpoint.get_tensor("high"), base[9:])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's own
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", [4, 5])
def test_a_later_pickle_protocol_is_told_as_such(tmp_path, protocol, is_zip):
    saved, path = {"a": torch.arange(3.0)}, tmp_path / "m.pt"
    torch.save(saved, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(tws.UnsupportedError, match="written with pickle_protocol=4 or later"):
        tws.load_checkpoint(path)
