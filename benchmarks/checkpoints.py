"""Checkpoints for the benchmarks: written by TensorFlow, or by the bundle writer of the tests.

Both write the same format. The second needs no TensorFlow, and can write a table that is larger
than memory, most of which is a hole in its file.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
_TESTS = Path(__file__).resolve().parents[1] / "tests"
_ZEROS = bytes(16 << 20)


def prefix(folder: Path) -> str:
    """The name of the checkpoint in a folder of inputs."""
    return str(folder / "model.ckpt")


def data_file(folder: Path) -> Path:
    return folder / "model.ckpt.data-00000-of-00001"


def files(folder: Path) -> tuple[Path, Path]:
    return folder / "model.ckpt.index", data_file(folder)


def write_checkpoint(folder: Path, tensors: Mapping[str, Floats]) -> str:
    """Writes tensors by key, sorted; returns who wrote them."""
    keys = sorted(tensors)
    if HAS_TENSORFLOW:
        import tensorflow as tf

        # The op that tf.train.Saver runs; without its graph, which may not exceed 2 GB.
        tf.raw_ops.SaveV2(
            prefix=prefix(folder),
            tensor_names=keys,
            shape_and_slices=[""] * len(keys),
            tensors=[tf.constant(tensors[key]) for key in keys],
        )
        return f"TensorFlow {tf.__version__}"
    writer = _bundle_writer()
    writer.write_bundle(
        prefix(folder),
        [
            writer.BundleEntry(key, writer.DType.FLOAT, tensors[key].shape, tensors[key].tobytes())
            for key in keys
        ],
    )
    return "tests/bundle_writer.py"


def write_sparse_table(folder: Path, key: str, shape: tuple[int, int], rows: Mapping[int, Floats]):
    """Writes a float32 table whose rows begin as given and are zeros otherwise.

    The zeros are holes in the data file: it takes no room, and reading it costs page cache only.
    """
    import google_crc32c

    row_bytes, size, crc = 4 * shape[1], 4 * shape[0] * shape[1], 0
    at = 0
    with data_file(folder).open("wb") as file:
        file.truncate(size)
        for row in sorted(rows):
            crc = _extend_by_zeros(crc, row * row_bytes - at)
            file.seek(row * row_bytes)
            file.write(rows[row].tobytes())
            crc = google_crc32c.extend(crc, rows[row].tobytes())
            at = row * row_bytes + rows[row].nbytes
    crc = _extend_by_zeros(crc, size - at)
    writer = _bundle_writer()
    entry = writer.BundleEntry(
        key, writer.DType.FLOAT, shape, offset=0, size=size, crc=writer.mask_crc(crc)
    )
    records, _ = writer.build_bundle([entry])
    Path(f"{prefix(folder)}.index").write_bytes(writer.write_table(sorted(records.items())))


def _extend_by_zeros(crc: int, count: int) -> int:
    import google_crc32c

    while count:
        piece = min(count, len(_ZEROS))
        crc = google_crc32c.extend(crc, _ZEROS[:piece] if piece < len(_ZEROS) else _ZEROS)
        count -= piece
    return crc


def _bundle_writer():
    if str(_TESTS) not in sys.path:
        sys.path.append(str(_TESTS))
    import bundle_writer

    return bundle_writer
