"""warmstart_embedding_matrix: every argument, and random vocabularies against Keras's own."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remapping_helpers import says, seeded
from torch import nn

import torch_warmstart as tws
from torch_warmstart import SettingsError, VocabularyError
from torch_warmstart.errors import CallbackError
from torch_warmstart.new_rows import keras_initializers

# -- warmstart_embedding_matrix --------------------------------------------------------------------

BASE = ["unk", "a", "b", "c"]
NEW = ["unk", "unk", "a", "b", "c", "d", "e"]
OLD_ROWS = torch.tensor([[1.0, 1.5, 1.25], [2, 2.5, 2.25], [3, 3.5, 3.25], [4, 4.5, 4.25]])
NEW_ROWS = -torch.arange(21.0).view(7, 3)
EXPECTED = torch.cat([OLD_ROWS[[0, 0, 1, 2, 3]], NEW_ROWS[5:]])


def write_lines(path, entries):
    path.write_text("\n".join(entries), newline="")
    return str(path)


def as_ids(entries):
    return torch.tensor([sum(entry.encode()) for entry in entries])


@pytest.mark.parametrize(
    "of",
    [
        list,
        tuple,
        np.array,
        lambda v: np.array(v, dtype=object),
        lambda v: np.char.encode(np.array(v)),  # what a tf.constant of str is as an array
        lambda v: list(np.array(v)),
        lambda v: [entry.encode() for entry in v],
        as_ids,
        lambda v: as_ids(v).numpy(),
        lambda v: as_ids(v).tolist(),
    ],
)
@pytest.mark.parametrize("matrix", [lambda m: m, lambda m: m.numpy()])
def test_known_entries_take_their_rows_whatever_the_vocabulary_is_in(of, matrix):
    """Keras' own cases with a list, an array and a tensor."""
    result = tws.warmstart_embedding_matrix(of(BASE), of(NEW), matrix(OLD_ROWS), matrix(NEW_ROWS))
    assert torch.equal(result, EXPECTED)


@pytest.mark.parametrize("path", [lambda p: p, str])
def test_vocabularies_from_files(tmp_path, path):
    base, new = write_lines(tmp_path / "base", BASE), write_lines(tmp_path / "new", NEW)
    result = tws.warmstart_embedding_matrix(path(base), path(new), OLD_ROWS, NEW_ROWS)
    assert torch.equal(result, EXPECTED)


@pytest.mark.parametrize("name", ["uniform", "RandomUniform", "random_uniform", None])
def test_by_default_new_rows_are_between_small_bounds(tmp_path, name):
    base, new = write_lines(tmp_path / "base", BASE), write_lines(tmp_path / "new", NEW)
    arguments = () if name is None else (name,)
    result = tws.warmstart_embedding_matrix(base, new, OLD_ROWS, *arguments)
    assert torch.equal(result[:5], EXPECTED[:5])
    assert result[5:].abs().min() > 0
    assert result[5:].abs().max() <= 0.05
    assert len(result[5:].unique()) == 6


def test_nothing_in_common_is_the_initial_matrix():
    result = tws.warmstart_embedding_matrix(BASE, list("vwxyz12"), OLD_ROWS, NEW_ROWS)
    assert torch.equal(result, NEW_ROWS)
    assert result.data_ptr() != NEW_ROWS.data_ptr()


def test_a_smaller_new_vocabulary():
    result = tws.warmstart_embedding_matrix(BASE, ["d", "e", "f", "a"], OLD_ROWS, NEW_ROWS[:4])
    assert torch.equal(result, torch.cat([NEW_ROWS[:3], OLD_ROWS[1:2]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(keras_initializers.INITIALIZERS))
def test_the_result_has_the_dtype_and_device_of_the_old_rows(dtype, name, device):
    old = OLD_ROWS.to(device, dtype, copy=True).requires_grad_()
    result = tws.warmstart_embedding_matrix(BASE, NEW, old, name)
    assert (result.dtype, result.device.type, result.requires_grad) == (dtype, device.type, False)
    assert torch.equal(result[:5].cpu(), EXPECTED[:5].to(dtype))


def test_an_initial_matrix_is_cast():
    result = tws.warmstart_embedding_matrix(BASE, NEW, OLD_ROWS, NEW_ROWS.double().numpy())
    assert result.dtype == torch.float32
    assert torch.equal(result, EXPECTED)


def test_nothing_that_is_given_is_written_to():
    old, new = OLD_ROWS.clone(), NEW_ROWS.clone()
    result = tws.warmstart_embedding_matrix(BASE, NEW, old.numpy(), lambda tensor: new)
    assert torch.equal(result, EXPECTED)
    tws.warmstart_embedding_matrix(BASE, NEW, old, new).fill_(0)
    assert torch.equal(old, OLD_ROWS)
    assert torch.equal(new, NEW_ROWS)


def test_a_read_only_or_reversed_or_swapped_array_of_old_rows_is_read():
    array = OLD_ROWS.flip(0).numpy()[::-1].astype(">f4")
    array.flags.writeable = False
    result = tws.warmstart_embedding_matrix(BASE, NEW, array, NEW_ROWS)
    assert torch.equal(result, EXPECTED)


def test_an_initialiser_sees_the_full_shape():
    result = tws.warmstart_embedding_matrix(BASE, NEW, OLD_ROWS, nn.init.eye_)
    assert torch.equal(result, torch.cat([EXPECTED[:5], torch.zeros(2, 3)]))


@pytest.mark.parametrize("initializer", ["uniform", "glorot_normal", nn.init.normal_])
def test_a_generator_makes_new_rows_reproducible(initializer):
    results = [
        tws.warmstart_embedding_matrix(BASE, NEW, OLD_ROWS, initializer, generator=seeded(5))
        for _ in "ab"
    ]
    assert torch.equal(*results)


def test_old_rows_beyond_the_old_vocabulary_are_ignored():
    result = tws.warmstart_embedding_matrix(BASE[:2], ["a", "b"], OLD_ROWS, "zeros")
    assert result.tolist() == [[2, 2.5, 2.25], [0, 0, 0]]


def test_an_entry_without_an_old_row_is_an_error_only_if_it_is_asked_for():
    assert len(tws.warmstart_embedding_matrix(BASE, ["a", "x"], OLD_ROWS[:3], "ones")) == 2
    with says(
        "warmstart_embedding_matrix: an entry of new_vocabulary is number 4 of base_vocabulary, "
        "but base_embeddings has only 3 rows."
    ):
        tws.warmstart_embedding_matrix(BASE, ["a", "c"], OLD_ROWS[:3])


def test_an_old_entry_that_is_there_twice_is_an_error():
    with says(
        "the list of length 3 has an entry twice, so its old row is ambiguous: 'a' (entry 1) and "
        "'a' (entry 3).",
        VocabularyError,
    ):
        tws.warmstart_embedding_matrix(["a", "b", "a"], NEW, OLD_ROWS)


def test_files_are_read_by_the_rules_for_vocabularies(tmp_path):
    """Keras' splitlines() would make of the first file four entries, and of the second two."""
    (tmp_path / "v").write_bytes("a\x0bb\nc\u2028d\n".encode())
    (tmp_path / "blank").write_bytes(b"a\n\n")
    result = tws.warmstart_embedding_matrix(
        tmp_path / "v", ["c\u2028d", "a", "a\x0bb"], OLD_ROWS, "zeros"
    )
    assert torch.equal(result, torch.stack([OLD_ROWS[1], torch.zeros(3), OLD_ROWS[0]]))
    with pytest.raises(VocabularyError, match="blank: line 2 is blank"):
        tws.warmstart_embedding_matrix(tmp_path / "blank", NEW, OLD_ROWS)


@pytest.mark.parametrize(
    ("base", "new", "message"),
    [
        ([], NEW, "A vocabulary needs at least one entry; an empty sequence was given."),
        (BASE, np.array([], dtype=str), "A vocabulary needs at least one entry"),
        (BASE, [1, 2], "the list of length 4 holds text and the list of length 2 integers; "),
        (BASE, ["a", 2], "A vocabulary is all str, all bytes or all int; "),
        ("none.txt", NEW, "Vocabulary file none.txt cannot be read"),
    ],
)
def test_vocabularies_that_are_none_are_errors(base, new, message):
    with pytest.raises(VocabularyError, match=f"^{re.escape(message)}"):
        tws.warmstart_embedding_matrix(base, new, OLD_ROWS)


@pytest.mark.parametrize(
    ("vocabulary", "kind"), [({"a": 0}, "dict"), (3, "int"), (b"a", "bytes"), (None, "NoneType")]
)
def test_a_vocabulary_of_another_type_is_an_error(vocabulary, kind):
    with says(
        "warmstart_embedding_matrix: base_vocabulary is a sequence or array of str, bytes or int, "
        f"or a path or URL, not a {kind}."
    ):
        tws.warmstart_embedding_matrix(vocabulary, NEW, OLD_ROWS)


@pytest.mark.parametrize(
    ("matrix", "found"),
    [
        (torch.zeros(3), "float32 of shape [3]"),
        (np.zeros((4, 2, 1)), "float64 of shape [4, 2, 1]"),
        (torch.zeros(4, 2, dtype=torch.int64), "int64 of shape [4, 2]"),
    ],
)
def test_old_rows_that_are_no_floating_matrix_are_an_error(matrix, found):
    with says(
        f"warmstart_embedding_matrix: base_embeddings is a matrix of a floating dtype, not {found}."
    ):
        tws.warmstart_embedding_matrix(BASE, NEW, matrix)


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        (
            "glorot_unifrom",
            "No initialiser is called 'glorot_unifrom' here; there are uniform, random_uniform, "
            "normal, random_normal, truncated_normal, zeros, ones, glorot_uniform, glorot_normal, "
            "he_uniform, he_normal, lecun_uniform, lecun_normal. Did you mean 'glorot_uniform' or "
            "'glorot_normal' or 'random_uniform'? Any function of torch.nn.init does too.",
        ),
        (
            None,
            "warmstart_embedding_matrix: new_embeddings_initializer is a name, a matrix or a "
            "callable, not None.",
        ),
        (
            NEW_ROWS[1:],
            "warmstart_embedding_matrix: new_embeddings_initializer is of shape [6, 3], but the "
            "result of [7, 3].",
        ),
        (
            torch.numel,
            "new_embeddings_initializer must fill the tensor it gets or return one of its shape, "
            "[7, 3]; it returned int.",
        ),
    ],
)
def test_initialisers_of_embeddings_that_do_not_fit_are_errors(initializer, message):
    with says(message):
        tws.warmstart_embedding_matrix(BASE, NEW, OLD_ROWS, initializer)


def test_a_generator_with_a_matrix_is_an_error():
    with says("A generator is of no use with values that are given."):
        tws.warmstart_embedding_matrix(BASE, NEW, OLD_ROWS, NEW_ROWS, generator=seeded(1))


ENTRY = st.sampled_from(["unk", "a", "b", "c", "d", "é", " a", "A"])


@pytest.mark.tensorflow
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.lists(ENTRY, min_size=1, unique=True),
    new=st.lists(ENTRY, min_size=1, max_size=12),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    dim=st.integers(1, 3),
    in_files=st.booleans(),
)
def test_random_vocabularies_as_keras_does_them(tmp_path, base, new, dtype, dim, in_files):
    import tf_keras

    random = np.random.default_rng(len(base) + 16 * len(new))
    old_rows, new_rows = (random.normal(size=(len(v), dim)).astype(dtype) for v in (base, new))
    if in_files:
        base, new = write_lines(tmp_path / "base", base), write_lines(tmp_path / "new", new)
    expected = tf_keras.utils.warmstart_embedding_matrix(
        base, new, old_rows, tf_keras.initializers.Constant(new_rows)
    ).numpy()
    result = tws.warmstart_embedding_matrix(base, new, old_rows, new_rows).numpy()
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "name", [*keras_initializers.INITIALIZERS, "RandomUniform", "GlorotNormal", "HeUniform", "Ones"]
)
def test_new_rows_are_distributed_as_keras_distributes_them(name):
    """By their quantiles, at a shape where inputs and outputs are far from equal."""
    import tf_keras

    new, old = [f"{n}" for n in range(4_000)], np.zeros((1, 24), np.float32)
    tf_keras.utils.set_random_seed(0)
    theirs = tf_keras.utils.warmstart_embedding_matrix(["old"], new, old, name).numpy()
    ours = tws.warmstart_embedding_matrix(["old"], new, old, name, generator=seeded(0)).numpy()
    bounded = "andom_normal" not in name and name != "normal"
    at = np.linspace(0, 1, 41) if bounded else np.linspace(0.025, 0.975, 39)
    difference = np.abs(np.quantile(ours, at) - np.quantile(theirs, at))
    assert difference.max() <= 0.005 * np.ptp(theirs)


@pytest.mark.tensorflow
def test_what_keras_refuses_is_refused():
    import tensorflow as tf
    import tf_keras

    for base, new, old in (
        ([], NEW, OLD_ROWS),
        (BASE, [], OLD_ROWS),
        ("none.txt", NEW, OLD_ROWS),
        (BASE, NEW, OLD_ROWS[:2]),
        (BASE, NEW, OLD_ROWS[:, 0]),
        (3, NEW, OLD_ROWS),
    ):
        with pytest.raises((ValueError, IndexError, tf.errors.OpError)):
            tf_keras.utils.warmstart_embedding_matrix(base, new, old.numpy())
        with pytest.raises((SettingsError, VocabularyError)):
            tws.warmstart_embedding_matrix(base, new, old)


def test_what_an_initialiser_raises_is_told_with_its_name():
    def broken(tensor):
        raise KeyError("mine")

    with pytest.raises(CallbackError, match="raised KeyError: 'mine'") as told:
        tws.warmstart_embedding_matrix(BASE, NEW, OLD_ROWS, broken)
    assert isinstance(told.value.__cause__, KeyError)
