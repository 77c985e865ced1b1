"""What every contender is given: two vocabulary files and a checkpoint, and what must come out.

Everything is seeded. The checkpoint is written by TensorFlow where it is installed; elsewhere by
the bundle writer of the tests, which writes the same format.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

KEY = "item_embedding/embedding_weights"  # of the table, in the checkpoint and in TF's graph
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None

_SHORTEST, _LONGEST = 16, 24  # bytes of a token
_NIBBLES = 12  # the first letters of a token spell a 48-bit number that no other token has
_SPREAD = 0x9E3779B97F4B  # odd, so multiplying by it modulo 2**48 gives different numbers
_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz0123456789", dtype=np.uint8)


@dataclass(frozen=True)
class Inputs:
    """A vocabulary change of a given size, as files in a folder."""

    folder: str
    rows: int  # of the old table and of the new one
    dim: int
    overlap: float  # the share of the new tokens that are old ones
    seed: int = 1

    @property
    def old_vocab(self) -> str:
        return str(Path(self.folder, "old_vocab.txt"))

    @property
    def new_vocab(self) -> str:
        return str(Path(self.folder, "new_vocab.txt"))

    @property
    def checkpoint(self) -> str:
        return str(Path(self.folder, "model.ckpt"))

    @property
    def table_bytes(self) -> int:
        return self.rows * self.dim * np.dtype(np.float32).itemsize

    @property
    def shared(self) -> int:
        return round(self.overlap * self.rows)

    def as_json(self) -> str:
        """For the command line of a worker."""
        return json.dumps(asdict(self))

    def warm_page_cache(self) -> None:
        """Reads every file once, so that no contender pays for a disk that another one warmed."""
        for path in sorted(Path(self.folder).iterdir()):
            with path.open("rb") as file:
                while file.read(1 << 23):
                    pass


def make_inputs(inputs: Inputs) -> dict[str, str]:
    """Writes the files; returns who wrote the checkpoint and the digest of the right result."""
    rng = np.random.default_rng(inputs.seed)
    # Token ids: the old vocabulary has [0, rows), the new one a window as long that begins later.
    old = rng.permutation(inputs.rows)
    new = rng.permutation(inputs.rows) + (inputs.rows - inputs.shared)
    _write_vocab(inputs.old_vocab, old, inputs.seed)
    _write_vocab(inputs.new_vocab, new, inputs.seed)
    table = rng.standard_normal((inputs.rows, inputs.dim), dtype=np.float32)
    written_by = _write_checkpoint(inputs.checkpoint, table)
    os.sync()  # or the disk would still be busy with them during the first runs
    return {"checkpoint_by": written_by, "sha256": digest(_expected(table, old, new))}


def digest(table: np.ndarray) -> str:
    """SHA-256 of a table's bytes."""
    return hashlib.sha256(np.ascontiguousarray(table)).hexdigest()


def _expected(table: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The new table, from the ids alone: no file and no contender is involved."""
    row_of = np.empty_like(old)
    row_of[old] = np.arange(len(old))
    known = new < len(old)
    expected = np.zeros_like(table)
    expected[known] = table[row_of[new[known]]]
    return expected


def _write_vocab(path: str, ids: np.ndarray, seed: int) -> None:
    """One token a line; a token depends on its id and the seed alone."""
    letters = _letters(ids.astype(np.uint64), seed)
    lengths = _SHORTEST + letters[:, -1].astype(np.int64) % (_LONGEST - _SHORTEST + 1)
    columns = np.arange(letters.shape[1])
    letters[np.arange(len(ids)), lengths] = ord("\n")
    letters[columns <= lengths[:, None]].tofile(path)


def _letters(ids: np.ndarray, seed: int) -> np.ndarray:
    """A matrix of letters, one row an id: a unique beginning and then a filling."""
    mask = np.uint64((1 << 4 * _NIBBLES) - 1)
    mixed = ids * np.uint64(_SPREAD) & mask
    shifts = np.arange(_NIBBLES, dtype=np.uint64) * np.uint64(4)
    unique = (mixed[:, None] >> shifts) & np.uint64(15)
    size = _LONGEST + 1 - _NIBBLES
    filling = np.random.default_rng(seed).integers(len(_LETTERS), size=(4096, size))
    return _LETTERS[np.hstack([unique.astype(np.int64), filling[ids % np.uint64(4096)]])]


def _write_checkpoint(prefix: str, table: np.ndarray) -> str:
    if HAS_TENSORFLOW:
        import tensorflow as tf

        # The op that tf.train.Saver runs; without its graph, which may not exceed 2 GB.
        tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=[KEY], shape_and_slices=[""], tensors=[tf.constant(table)]
        )
        return f"TensorFlow {tf.__version__}"
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from bundle_writer import BundleEntry, DType, write_bundle

    write_bundle(prefix, [BundleEntry(KEY, DType.FLOAT, table.shape, table.tobytes())])
    return "tests/bundle_writer.py"
