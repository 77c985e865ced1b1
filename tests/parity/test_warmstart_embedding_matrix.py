"""The cases of Keras' own tests of `warmstart_embedding_matrix`, with both engines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engines import assert_equal, write_vocab

import torch_warmstart as tws

BASE = ["unk", "a", "b", "c"]
NEW = ["unk", "unk", "a", "b", "c", "d", "e"]
BASE_MATRIX = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], np.float32)
FRESH = -np.arange(21, dtype=np.float32).reshape(7, 3) - 1
EXPECTED = [
    [1.0, 2.0, 3.0],
    [1.0, 2.0, 3.0],
    [4.0, 5.0, 6.0],
    [7.0, 8.0, 9.0],
    [10.0, 11.0, 12.0],
    [-16.0, -17.0, -18.0],
    [-19.0, -20.0, -21.0],
]


@pytest.fixture
def warmstart(engine):
    """Either function: our matrix of fresh rows is Keras' Constant(matrix)."""
    if not engine.is_tensorflow:
        return tws.warmstart_embedding_matrix
    keras = pytest.importorskip("tf_keras")

    def run(base, new, matrix, *initializer):
        chosen = [
            keras.initializers.Constant(i) if isinstance(i, np.ndarray) else i for i in initializer
        ]
        result = keras.utils.warmstart_embedding_matrix(base, new, matrix, *chosen)
        return torch.from_numpy(result.numpy().copy())

    return run


def as_tensor(engine, entries):
    """TensorFlow's tensors of strings hold bytes; torch has none, and a list of bytes will do."""
    encoded = [entry.encode() for entry in entries]
    if not engine.is_tensorflow:
        return encoded
    import tensorflow as tf

    return tf.constant(encoded)


def check_defaults(result):
    """Known rows are the old ones; the new ones are drawn from [-0.05, 0.05)."""
    assert_equal(result[:5], EXPECTED[:5])
    assert result.shape == (7, 3)
    assert result[5:].abs().max() <= 0.05
    assert result[5:].unique().numel() > 1


def test_lists(warmstart):
    assert_equal(warmstart(BASE, NEW, BASE_MATRIX, FRESH), EXPECTED)


def test_arrays(warmstart):
    assert_equal(warmstart(np.array(BASE), np.array(NEW), BASE_MATRIX, FRESH), EXPECTED)


def test_tensors(engine, warmstart):
    base, new = as_tensor(engine, BASE), as_tensor(engine, NEW)
    assert_equal(warmstart(base, new, BASE_MATRIX, FRESH), EXPECTED)


def test_files(warmstart, tmp_path):
    base, new = write_vocab(tmp_path, "base", BASE), write_vocab(tmp_path, "new", NEW)
    assert_equal(warmstart(base, new, BASE_MATRIX, FRESH), EXPECTED)


def test_files_and_the_default_initialiser(warmstart, tmp_path):
    base, new = write_vocab(tmp_path, "base", BASE), write_vocab(tmp_path, "new", NEW)
    check_defaults(warmstart(base, new, BASE_MATRIX))


def test_arrays_and_the_default_initialiser(warmstart):
    check_defaults(warmstart(np.array(BASE), np.array(NEW), BASE_MATRIX))


def test_an_initialiser_by_name(warmstart):
    check_defaults(warmstart(BASE, NEW, BASE_MATRIX, "RandomUniform"))


def test_nothing_in_common(warmstart):
    assert_equal(warmstart(BASE, ["d", "e", "f", "g", "h", "i", "j"], BASE_MATRIX, FRESH), FRESH)


def test_a_smaller_new_vocabulary(warmstart):
    result = warmstart(BASE, ["d", "e", "f", "a"], BASE_MATRIX, FRESH[:4])
    assert_equal(result, [*FRESH[:3].tolist(), [4.0, 5.0, 6.0]])


# -- deviations; docs/tf-parity.md has the reasons -------------------------------------------------


def test_an_old_entry_twice_is_an_error(engine, warmstart):
    base, fresh = ["a", "b", "a"], np.zeros((1, 1), np.float32)
    matrix = np.array([[1.0], [2.0], [3.0]], np.float32)
    if engine.is_tensorflow:
        assert_equal(warmstart(base, ["a"], matrix, fresh), [[3.0]])
    else:
        with pytest.raises(tws.VocabularyError, match="twice"):
            warmstart(base, ["a"], matrix, fresh)


def test_bytes_and_str_are_the_same_text(engine, warmstart):
    """In Keras a tensor and a list have nothing in common, and it does not say so."""
    base, new, fresh = as_tensor(engine, ["a"]), ["a"], np.zeros((1, 1), np.float32)
    result = warmstart(base, new, np.array([[7.0]], np.float32), fresh)
    assert_equal(result, [[0.0]] if engine.is_tensorflow else [[7.0]])


def test_files_are_read_as_bytes(engine, warmstart, tmp_path):
    r"""To Keras \x0b ends a line, so that the last row is another entry's."""
    base = write_vocab(tmp_path, "base", ["a", "b\x0bc", "d"])
    new = write_vocab(tmp_path, "new", ["d"])
    matrix = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    result = warmstart(base, new, matrix, np.zeros((1, 1), np.float32))
    assert_equal(result, [[4.0]] if engine.is_tensorflow else [[3.0]])
