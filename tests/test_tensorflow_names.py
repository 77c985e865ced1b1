"""The helpers that TensorFlow's users call by name, by hand and against TensorFlow and tf_keras."""

from __future__ import annotations

import contextlib
import doctest
import functools
import re

import numpy as np
import pytest
import torch
from bundle_writer import FULL, BundleEntry, BundleSlice, DType, write_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from v1_writer import whole, write_v1

import torch_warmstart as tws
from torch_warmstart import PlanError, SettingsError, VocabularyError
from torch_warmstart import tensorflow_names as tf_compat
from torch_warmstart.formats.base import Checkpoint
from torch_warmstart.new_rows import keras_initializers

M = torch.arange(80.0).view(5, 16)
REMAP = functools.partial(tws.load_and_remap_matrix, {"m": M}, "m")


@contextlib.contextmanager
def says(text, error=SettingsError):
    """Expects an error whose message is exactly this text."""
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        yield


def entry(name, tensor, **places):
    return BundleEntry(name, DType.FLOAT, tuple(tensor.shape), tensor.numpy().tobytes(), **places)


def test_the_examples_of_the_docstrings_are_right():
    names = {"generate_vocab_remapping": tws.generate_vocab_remapping}
    assert doctest.testmod(tf_compat, extraglobs=names) == (0, 9)


# -- load_and_remap_matrix -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "cols", "values", "expected"),
    [
        ([1, 0], [], [], M[[1, 0]]),
        (range(5), [2, 0], [], M[:, [2, 0]]),
        ([1, 0, 4], [1, 15], [], M[[1, 0, 4]][:, [1, 15]]),
        ([2, -1, 0], [1, -1], [42] * 4, torch.tensor([[33.0, 42], [42, 42], [1, 42]])),
        ([2, -7, 0], [1, -2], [1, 2, 3, 4], torch.tensor([[33.0, 1], [2, 3], [1, 4]])),
        ([-1] * 7, [], [42] * 112, torch.full((7, 16), 42.0)),
        ([-1] * 7, [-1] * 4, [42] * 28, torch.full((7, 4), 42.0)),
        ([4, 3, 2, 1, 0], None, (), M.flip(0)),
        ([], [], [], torch.empty(0, 16)),
    ],
)
@pytest.mark.parametrize("max_rows", [-1, 1, 2, 3, 10])
def test_the_cases_of_tensorflows_own_op(rows, cols, values, expected, max_rows):
    result = REMAP(rows, cols, values, *expected.shape, max_rows)
    assert torch.equal(result, expected)
    assert result.dtype == torch.float32


def test_rows_columns_and_oov_of_both_by_their_vocabularies():
    new_rows, old_rows = ["zero", "one", "two", "three", "four"], ["zero", "one", "two", "three"]
    new_cols = ["MISSING", "knitting", "flask", "eminem"]
    rows, _ = tws.generate_vocab_remapping(new_rows, old_rows, new_vocab_offset=1)
    cols, _ = tws.generate_vocab_remapping(new_cols, ["knitting", "eminem", "MISSING"])
    rows, cols = (nn.functional.pad(indices, (0, 1), value=-1) for indices in (rows, cols))
    result = REMAP(rows, cols, functools.partial(nn.init.constant_, val=42), 5, 5)
    assert result.tolist() == [
        [18, 16, 42, 17, 42],
        [34, 32, 42, 33, 42],
        [50, 48, 42, 49, 42],
        [42, 42, 42, 42, 42],
        [42, 42, 42, 42, 42],
    ]


def test_what_generate_vocab_remapping_returns_is_a_remapping():
    rows = tws.generate_vocab_remapping(["c", "x"], ["a", "b", "c"])
    cols = tws.generate_vocab_remapping([7, 9], [9, 8, 7])
    assert REMAP(rows, cols, [-1, -2], 2, 2).tolist() == [[34, 32], [-1, -2]]


@pytest.mark.parametrize(
    "of", [list, tuple, np.array, torch.tensor, lambda v: np.array(v, "u1"), lambda v: range(1, 3)]
)
def test_a_remapping_may_be_any_integers(of):
    assert torch.equal(REMAP(of([1, 2]), None, [], 2, 16), M[[1, 2]])


@pytest.mark.parametrize("of", [tuple, np.array, torch.tensor, lambda v: np.array(v)[:, None]])
def test_values_may_come_in_any_shape(of):
    assert REMAP([0, -1], [3, -1], of([1.5, 2.5, 3.5]), 2, 2).tolist() == [[3, 1.5], [2.5, 3.5]]


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2],
)
def test_every_floating_dtype_keeps_its_bits(dtype):
    old = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = tws.load_and_remap_matrix({"m": old}, "m", [3, -1, 0], [2, -1], [0.25] * 4, 3, 2)
    expected = torch.full((3, 2), 0.25).to(dtype)
    expected[0, 0], expected[2, 0] = old[3, 2], old[0, 2]
    assert result.dtype == dtype
    assert torch.equal(result.view(torch.uint8), expected.view(torch.uint8))


def test_values_of_a_list_are_not_rounded_to_float32():
    old = torch.zeros(1, 1, dtype=torch.float64)
    assert tws.load_and_remap_matrix({"m": old}, "m", [-1], None, [0.1], 1, 1).item() == 0.1


def test_an_initialiser_sees_the_full_shape_and_the_dtype():
    seen = []

    def fill(tensor, generator=None):
        seen.append((tuple(tensor.shape), tensor.dtype, generator))
        return torch.full_like(tensor, 7)

    generator = torch.Generator()
    old = {"m": M.half()}
    result = tws.load_and_remap_matrix(old, "m", [0, -1], [1, -1], fill, 2, 2, generator=generator)
    assert result.tolist() == [[1, 7], [7, 7]]
    assert seen == [((2, 2), torch.float16, generator)]


def test_a_seeded_initialiser_gives_the_same_cells_again():
    results = [
        REMAP([-1, 2], None, nn.init.xavier_uniform_, 2, 16, generator=_seeded(3)) for _ in "ab"
    ]
    assert torch.equal(*results)
    assert torch.equal(results[0][0], nn.init.xavier_uniform_(torch.empty(2, 16), 1, _seeded(3))[0])
    assert torch.equal(results[0][1], M[2])


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_only_the_needed_rows_are_read(monkeypatch):
    asked = []
    original = Checkpoint.get_tensor

    def get_tensor(self, key, rows=None):
        asked.append((key, rows.tolist()))
        return original(self, key, rows)

    monkeypatch.setattr(Checkpoint, "get_tensor", get_tensor)
    REMAP([4, -1, 1, 0], [0, -1], [0] * 5, 4, 2)
    REMAP([4, -1, 1, 0], [0, -1], [0] * 5, 4, 2, 2)
    REMAP([-1], None, [0] * 16, 1, 16)
    assert asked == [("m", [4, 1, 0]), ("m", [4, 1]), ("m", [0])]


def test_any_checkpoint_will_do(tmp_path):
    write_v1(tmp_path / "v1", [whole("m", DType.FLOAT, (5, 16), M.flatten().tolist())])
    extents = [[(0, 2), FULL], [(2, 3), FULL]]
    slices = [BundleSlice(e, M[e[0][0] :][: e[0][1]].numpy().tobytes()) for e in extents]
    write_bundle(tmp_path / "sliced", [BundleEntry("m", DType.FLOAT, (5, 16), slices=slices)])
    write_bundle(tmp_path / "plain", [entry("m", M)])
    torch.save({"m": M}, tmp_path / "m.pt")
    model = nn.Module()
    model.m = nn.Parameter(M.clone())
    expected = torch.tensor([[49.0, 7], [8, 9], [17, 10]])
    for source in (*(tmp_path / name for name in ("v1", "sliced", "plain", "m.pt")), model):
        result = tws.load_and_remap_matrix(source, "m", [3, -1, 1], [1, -1], [7, 8, 9, 10], 3, 2)
        assert torch.equal(result, expected), source


def test_an_open_checkpoint_stays_open(tmp_path):
    write_bundle(tmp_path / "c", [entry("m", M)])
    with tws.load_checkpoint(tmp_path / "c") as checkpoint:
        for _ in range(2):
            result = tws.load_and_remap_matrix(checkpoint, "m:0", [1], None, [], 1, 16)
            assert torch.equal(result, M[[1]])


def test_the_model_in_memory_is_not_written_to():
    old = M.clone()
    result = tws.load_and_remap_matrix({"m": old}, "m", range(5), None, [], 5, 16)
    result.fill_(0)
    assert torch.equal(old, M)


def test_a_checksum_is_checked_if_asked_for(tmp_path):
    write_bundle(tmp_path / "c", [entry("m", M, crc=1)])
    arguments = (str(tmp_path / "c"), "m", [1], None, [], 1, 16)
    assert torch.equal(tws.load_and_remap_matrix(*arguments), M[[1]])
    with pytest.raises(tws.CorruptCheckpointError, match="m"):
        tws.load_and_remap_matrix(*arguments, verify=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([1, 0, 0, 0, 1, 2], None, [], 6, 16),
            "row_remapping asks for old row 0 twice, for the new rows 1 and 2.",
        ),
        (
            (range(5), [3, -1, -1, 3], [], 5, 4),
            "col_remapping asks for old column 3 twice, for the new columns 0 and 3.",
        ),
        (([5], None, [], 1, 16), "row_remapping asks for row 5 of 'm', which has 5 rows."),
        (([0], [16], [], 1, 1), "col_remapping asks for column 16 of 'm', which has 16 columns."),
        (([0, 1], None, [], 3, 16), "row_remapping has length 2, but num_rows is 3."),
        (([0], [0, 1], [], 1, 3), "col_remapping has length 2, but num_cols is 3."),
        (
            ([0], [], [], 1, 15),
            "without a col_remapping num_cols must be 16, as many columns as 'm' has; it is 15.",
        ),
        (
            ([2, -1, 0], [1, -1], [], 3, 2),
            "4 cells of [3, 2] have no old value, but initializing_values has 0.",
        ),
        (
            ([2, -1, 0], [1, -1], [42] * 5, 3, 2),
            "4 cells of [3, 2] have no old value, but initializing_values has 5.",
        ),
        (
            ([0, 1], None, [42.0], 2, 16),
            "0 cells of [2, 16] have no old value, but initializing_values has 1.",
        ),
        (
            ([0.5], None, [], 1, 16),
            "row_remapping is a vector of integers, not float64 of shape [1].",
        ),
        (
            ([True], None, [], 1, 16),
            "row_remapping is a vector of integers, not bool of shape [1].",
        ),
        (
            ([[0]], None, [], 1, 16),
            "row_remapping is a vector of integers, not int64 of shape [1, 1].",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_errors(arguments, message):
    with says(f"load_and_remap_matrix: {message}"):
        REMAP(*arguments)


def test_tensors_that_are_no_floating_matrices_are_errors(tmp_path):
    write_bundle(tmp_path / "c", [BundleEntry("s", DType.STRING, (1, 1), [b"x"])])
    for source, message in (
        ({"m": torch.zeros(3)}, "'m' is float32 of shape [3]"),
        ({"m": torch.zeros(2, 2, dtype=torch.int64)}, "'m' is int64 of shape [2, 2]"),
        ({"m": torch.zeros(2, 2, dtype=torch.complex64)}, "'m' is complex64 of shape [2, 2]"),
        (str(tmp_path / "c"), "'s' is string of shape [1, 1]"),
    ):
        name = message[1]
        with says(
            f"load_and_remap_matrix: {message}; only matrices of a floating dtype are remapped."
        ):
            tws.load_and_remap_matrix(source, name, [0], None, [], 1, 2)


def test_a_missing_tensor_is_an_error_even_if_no_row_of_it_is_needed():
    with pytest.raises(tws.MissingTensorError, match="no tensor 'mm'"):
        tws.load_and_remap_matrix({"m": M}, "mm", [-1], None, [0] * 16, 1, 16)


def test_initialisers_that_do_not_fit_are_errors():
    with says(
        "initializing_values must fill the tensor it gets or return one of its shape, [1, 16]; it "
        "returned [2]."
    ):
        REMAP([-1], None, lambda tensor: torch.zeros(2), 1, 16)
    with says("A generator is of no use with values that are given."):
        REMAP([0], None, [], 1, 16, generator=torch.Generator())
    with pytest.raises(SettingsError, match="initializing_values is nothing that a tensor can be"):
        REMAP([-1], None, ["x"] * 16, 1, 16)


@st.composite
def remappings(draw):
    """Both remappings, with as many values as they need or one fewer or more."""
    old_rows, old_cols = draw(st.integers(1, 5)), draw(st.integers(1, 5))

    def indices(size):
        present = draw(st.lists(st.integers(0, size - 1), unique=True, max_size=size))
        return draw(st.permutations(present + [-1] * draw(st.integers(0, 3))))

    rows, cols = indices(old_rows), indices(old_cols)
    num_cols = len(cols) or old_cols
    present_cols = sum(col >= 0 for col in cols) if cols else old_cols
    missing = len(rows) * num_cols - sum(row >= 0 for row in rows) * present_cols
    count = max(0, missing + draw(st.sampled_from([0, 0, 0, -1, 1])))
    sizes = (old_rows, old_cols)
    return sizes, rows, cols, count, num_cols, draw(st.sampled_from([-1, 1, 2]))


@pytest.mark.tensorflow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=remappings())
def test_random_remappings_as_tensorflow_does_them(tmp_path, case):
    import tensorflow as tf
    from tensorflow.python.ops import gen_checkpoint_ops

    sizes, rows, cols, count, num_cols, max_rows = case
    old = torch.arange(float(sizes[0] * sizes[1])).view(sizes)
    write_bundle(tmp_path / "c", [entry("m", old)])
    values = (100.0 + np.arange(count)).astype(np.float32)
    arguments = (
        *(str(tmp_path / "c"), "m", np.array(rows, np.int64), np.array(cols, np.int64)),
        *(values, len(rows), num_cols, max_rows),
    )
    try:
        expected = gen_checkpoint_ops.load_and_remap_matrix(*arguments).numpy()
    except tf.errors.InvalidArgumentError:
        with pytest.raises(SettingsError, match="initializing_values has"):
            tws.load_and_remap_matrix(*arguments)
    else:
        np.testing.assert_array_equal(tws.load_and_remap_matrix(*arguments).numpy(), expected)


@pytest.mark.tensorflow
def test_what_tensorflow_refuses_is_refused(tmp_path):
    """But for a column past the old matrix, where TensorFlow returns uninitialised memory."""
    import tensorflow as tf
    from tensorflow.python.ops import gen_checkpoint_ops

    write_bundle(tmp_path / "c", [entry("m", M)])
    for rows, cols, values, num_rows, num_cols in (
        ([0, 0], [], [], 2, 16),
        ([0], [3, 3], [], 1, 2),
        ([5], [], [], 1, 16),
        ([0], [], [], 2, 16),
        ([0], [], [], 1, 15),
        ([-1], [1], [], 1, 1),
        ([0], [1], [1.0], 1, 1),
    ):
        arguments = (
            *(str(tmp_path / "c"), "m", np.array(rows, np.int64), np.array(cols, np.int64)),
            *(np.array(values, np.float32), num_rows, num_cols),
        )
        with pytest.raises(tf.errors.OpError):
            gen_checkpoint_ops.load_and_remap_matrix(*arguments)
        with pytest.raises(SettingsError):
            tws.load_and_remap_matrix(*arguments)


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
        tws.warmstart_embedding_matrix(BASE, NEW, OLD_ROWS, initializer, generator=_seeded(5))
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
            "[7, 3]; it returned 21.",
        ),
    ],
)
def test_initialisers_of_embeddings_that_do_not_fit_are_errors(initializer, message):
    with says(message):
        tws.warmstart_embedding_matrix(BASE, NEW, OLD_ROWS, initializer)


def test_a_generator_with_a_matrix_is_an_error():
    with says("A generator is of no use with values that are given."):
        tws.warmstart_embedding_matrix(BASE, NEW, OLD_ROWS, NEW_ROWS, generator=_seeded(1))


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
    ours = tws.warmstart_embedding_matrix(["old"], new, old, name, generator=_seeded(0)).numpy()
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


# -- init_from_checkpoint --------------------------------------------------------------------------


def numbers(seed, *shape):
    return torch.randn(shape, generator=_seeded(seed))


VALUES = {
    "old/dense/kernel": numbers(1, 2, 3),
    "old/dense/bias": numbers(2, 3),
    "old/norm/gamma": numbers(3, 3),
    "old/norm/beta": numbers(4, 3),
    "old/norm/moving_mean": numbers(5, 3),
    "old/norm/moving_variance": numbers(6, 3),
    "old_1/dense/kernel": numbers(7, 2, 3),
    "old_1/dense/bias": numbers(8, 3),
    "words/embeddings": numbers(9, 4, 2),
    "plain": numbers(10, 2, 3),
}
STATE = {
    "dense.weight": VALUES["old/dense/kernel"].t(),
    "dense.bias": VALUES["old/dense/bias"],
    "norm.weight": VALUES["old/norm/gamma"],
    "norm.bias": VALUES["old/norm/beta"],
    "norm.running_mean": VALUES["old/norm/moving_mean"],
    "norm.running_var": VALUES["old/norm/moving_variance"],
}


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.new = Tower()
        self.new_1 = Tower()
        self.words = nn.Embedding(4, 2)
        self.table = nn.Parameter(torch.zeros(2, 3))


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A TensorFlow checkpoint called model.ckpt in the current directory."""
    monkeypatch.chdir(tmp_path)
    write_bundle("model.ckpt", [entry(name, value) for name, value in VALUES.items()])
    return "model.ckpt"


def assert_tower(tower, **others):
    expected = {**STATE, **others}
    for name, value in expected.items():
        assert torch.equal(tower.state_dict()[name], value), name


@pytest.mark.parametrize(
    "assignment_map",
    [
        {"old/": "new/"},
        {"old/": "new."},
        [("old/", "new/")],
        (("old/dense/", "new/dense/"), ["old/norm/", "new/norm/"]),
        {"old/": "new/", "old/dense/bias": "new/dense/bias"},
    ],
)
def test_a_scope_takes_all_below_it_and_nothing_beside_it(checkpoint, assignment_map):
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = dict(model.named_parameters())
    report = tws.init_from_checkpoint(model, checkpoint, assignment_map)
    assert_tower(model.new)
    for name, value in model.state_dict().items():
        if name.removeprefix("new.") not in STATE or not name.startswith("new."):
            assert torch.equal(value, before[name]), name
    assert {v.name for v in report.variables if v.state != "kept"} == {f"new.{n}" for n in STATE}
    assert dict(model.named_parameters()).keys() == kept.keys()
    assert all(model.get_parameter(name) is parameter for name, parameter in kept.items())


def test_single_variables_by_name_or_as_themselves(checkpoint):
    model = Net()
    assignment_map = {
        "old/dense/kernel": "new/dense/weight",
        "old_1/dense/kernel:0": "new_1.dense.weight",
        "old/norm/moving_mean": model.new.norm.running_mean,
        "words/embeddings": model.words.weight,
        "plain": "table",
    }
    report = tws.init_from_checkpoint(model, checkpoint, assignment_map)
    assert torch.equal(model.new.dense.weight, VALUES["old/dense/kernel"].t())
    assert torch.equal(model.new_1.dense.weight, VALUES["old_1/dense/kernel"].t())
    assert torch.equal(model.new.norm.running_mean, VALUES["old/norm/moving_mean"])
    assert torch.equal(model.words.weight, VALUES["words/embeddings"])
    assert torch.equal(model.table, VALUES["plain"])
    assert sum(v.state != "kept" for v in report.variables) == 5


def test_one_tensor_to_two_variables(checkpoint):
    model = Net()
    pairs = [("old/dense/bias", "new.dense.bias"), ("old/dense/bias", "new_1.dense.bias")]
    tws.init_from_checkpoint(model, checkpoint, pairs)
    assert torch.equal(model.new.dense.bias, VALUES["old/dense/bias"])
    assert torch.equal(model.new_1.dense.bias, VALUES["old/dense/bias"])


def test_one_scope_to_two(checkpoint):
    model = Net()
    tws.init_from_checkpoint(model, checkpoint, [("old/", "new/"), ("old/", "new_1/")])
    assert_tower(model.new)
    assert_tower(model.new_1)


def test_the_root_is_a_scope_on_either_side(checkpoint):
    tower = Tower()
    tws.init_from_checkpoint(tower, checkpoint, {"old/": "/"})
    assert_tower(tower)
    outer = nn.ModuleDict({"outer": nn.ModuleDict({"words": nn.Embedding(4, 2)})})
    tws.init_from_checkpoint(outer, checkpoint, {"/": "outer/"})
    assert torch.equal(outer.outer.words.weight, VALUES["words/embeddings"])
    tws.init_from_checkpoint(inner := nn.ModuleDict({"old": Tower()}), checkpoint, {"/": "/"})
    assert_tower(inner.old)


def test_a_scope_may_be_a_layer(checkpoint):
    layer = nn.Linear(2, 3)
    tws.init_from_checkpoint(layer, checkpoint, {"old/dense/": "/"})
    assert torch.equal(layer.weight, STATE["dense.weight"])


def test_layers_of_several_tensors_are_in_a_scope_like_others(tmp_path):
    shapes = {
        "lstm/kernel": (2, 12),
        "lstm/recurrent_kernel": (3, 12),
        "lstm/bias": (12,),
        "attention/attention_output/kernel": (2, 2, 4),
        "attention/attention_output/bias": (4,),
        "sep/depthwise_kernel": (3, 3, 2, 1),
        "sep/pointwise_kernel": (1, 1, 2, 4),
    }
    for projection in ("query", "key", "value"):
        shapes[f"attention/{projection}/kernel"] = (4, 2, 2)
        shapes[f"attention/{projection}/bias"] = (2, 2)
    entries = [
        entry(f"{scope}{name}", numbers(seed, *shape))
        for scope in ("", "old/")
        for seed, (name, shape) in enumerate(shapes.items())
    ]
    write_bundle(tmp_path / "c", entries)

    def layers():
        depthwise = nn.Conv2d(2, 2, 3, groups=2, bias=False)
        separable = nn.Sequential(depthwise, nn.Conv2d(2, 4, 1, bias=False))
        attention = nn.MultiheadAttention(4, 2)
        return nn.ModuleDict({"lstm": nn.LSTM(2, 3), "attention": attention, "sep": separable})

    expected, model = layers(), nn.ModuleDict({"new": layers()})
    tws.warm_start(expected, tmp_path / "c")
    report = tws.init_from_checkpoint(model, tmp_path / "c", {"old/": "new/"})
    for name, value in expected.state_dict().items():
        assert torch.equal(model.new.state_dict()[name], value), name
    assert all(key.startswith("old/") for v in report.variables for key in v.keys)


def test_the_more_specific_entry_counts(checkpoint):
    model = nn.ModuleDict({"new": Tower()})
    assignment_map = {
        "old_1/dense/": "new/dense/",
        "old/": "new/",
        "old/norm/beta": "new/dense/bias",
    }
    tws.init_from_checkpoint(model, checkpoint, assignment_map)
    weight = VALUES["old_1/dense/kernel"].t()
    assert_tower(model.new, **{"dense.weight": weight, "dense.bias": VALUES["old/norm/beta"]})


def test_what_a_more_specific_entry_takes_need_not_be_in_the_scope_around_it(checkpoint):
    model = nn.ModuleDict({"dense": nn.Linear(2, 3), "extra": nn.Linear(2, 3)})
    tws.init_from_checkpoint(model, checkpoint, {"old/": "/", "old_1/dense/": "extra/"})
    assert torch.equal(model.extra.bias, VALUES["old_1/dense/bias"])


@pytest.mark.parametrize(
    "inner",
    [
        {"old/dense/": "dense/"},
        {"old/dense/kernel": "dense.weight", "old/dense/bias": "dense.bias"},
    ],
)
def test_a_scope_of_which_nothing_is_left_need_not_be_there(checkpoint, inner):
    model = nn.ModuleDict({"dense": nn.Linear(2, 3)})
    tws.init_from_checkpoint(model, checkpoint, {"none/": "/", **inner})
    assert torch.equal(model.dense.weight, STATE["dense.weight"])
    assert torch.equal(model.dense.bias, STATE["dense.bias"])


def test_the_same_entry_may_come_twice(checkpoint):
    model = nn.ModuleDict({"words": nn.Embedding(4, 2), "head": nn.Linear(2, 4, bias=False)})
    model.head.weight = model.words.weight
    assignment_map = [
        ("words/embeddings", "words.weight"),
        ("words/embeddings:0", "head/weight"),
        ("words/embeddings", model.words.weight),
        ("words/", "/"),
        ("words/", "."),
    ]
    tws.init_from_checkpoint(model, checkpoint, assignment_map)
    assert torch.equal(model.words.weight, VALUES["words/embeddings"])


def test_tied_variables_need_only_one_of_their_names(checkpoint):
    model = nn.ModuleDict({"words": nn.Embedding(4, 2), "head": nn.Linear(2, 4, bias=False)})
    model.head.weight = model.words.weight
    for assignment_map in ({"/": "/"}, {"words/": "head/"}, {"words/embeddings": "words/weight"}):
        nn.init.zeros_(model.words.weight)
        if assignment_map == {"words/": "head/"}:
            with pytest.raises(
                PlanError, match="has nothing of what it asks for, such as 'words/w"
            ):
                tws.init_from_checkpoint(model, checkpoint, assignment_map)
            continue
        tws.init_from_checkpoint(model, checkpoint, assignment_map)
        assert torch.equal(model.head.weight, VALUES["words/embeddings"])


def test_wrappers_are_no_part_of_names(checkpoint):
    model = nn.DataParallel(Tower())
    tws.init_from_checkpoint(model, checkpoint, {"old/": "/"})
    assert_tower(model.module)


@pytest.mark.parametrize(
    ("scope", "zero"), [("block.0/", ""), ("block_0/", ":0"), ("block.0/", ":0")]
)
def test_names_in_a_tensorflow_checkpoint_may_have_dots_or_zeros(tmp_path, scope, zero):
    kernel, bias = numbers(1, 2, 3), numbers(2, 3)
    entries = [entry(f"{scope}dense/kernel", kernel), entry(f"{scope}dense/bias{zero}", bias)]
    write_bundle(tmp_path / "c", entries)
    model = nn.ModuleDict({"dense": nn.Linear(2, 3)})
    tws.init_from_checkpoint(model, tmp_path / "c", {scope: "/"})
    assert torch.equal(model.dense.weight, kernel.t())
    assert torch.equal(model.dense.bias, bias)


@pytest.mark.parametrize("begin", ["old/", "old."])
def test_a_torch_checkpoint_has_torchs_names_and_counts_batches(begin):
    old = nn.ModuleDict({"old": Tower()})
    for tensor in old.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) * 9)
    model = Net()
    tws.init_from_checkpoint(model, old.state_dict(), {begin: "new_1/"})
    for name, value in old.old.state_dict().items():
        assert torch.equal(model.new_1.state_dict()[name], value), name


def test_an_object_based_checkpoint_is_known_by_its_full_names_and_paths(request):
    folder = request.path.parent / "fixtures" / "object_based"
    w = tws.load_variable(folder, "nested/inner/w/.ATTRIBUTES/VARIABLE_VALUE")
    for assignment_map in (
        {"scope/": "/"},
        {"nested/inner/": "/"},
        {"scope/w": "w"},
        {"nested/inner/w": "w"},
    ):
        model = nn.ParameterDict({"w": nn.Parameter(torch.zeros(2, 2))})
        tws.init_from_checkpoint(model, folder, assignment_map)
        assert torch.equal(model.w, w)


def test_an_ambiguous_name_is_an_error(request):
    folder = request.path.parent / "fixtures" / "object_based"
    model = nn.ParameterDict({"fruit": nn.Parameter(torch.zeros(2))})
    with pytest.raises(
        PlanError,
        match=r"fruit: 'fruit' is the name of several tensors; name one by its key: "
        r"'first/.ATTRIBUTES/VARIABLE_VALUE' and 'second/.ATTRIBUTES/VARIABLE_VALUE'.",
    ):
        tws.init_from_checkpoint(model, folder, {"/": "/"})


def test_an_open_checkpoint_stays_open_afterwards(checkpoint):
    with tws.load_checkpoint(checkpoint) as opened:
        tws.init_from_checkpoint(Net(), opened, {"old/": "new/"})
        assert torch.equal(opened.get_tensor("plain"), VALUES["plain"])


def test_all_problems_of_a_map_come_in_one_error(checkpoint):
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assignment_map = [
        ("old/dense/kernl", "new/dense/weight"),
        ("old_1/", "new_1/"),
        ("old/", "nwe/"),
        ("plain", "tabel"),
        ("plain", torch.zeros(2, 3)),
        ("old/norms/", "new/norm/"),
        ("words/", "words/"),
        ("old/", "words/"),
        ("old/dense/bias", "new/dense/bias"),
        ("old_1/dense/bias", "new.dense.bias"),
    ]
    with says(
        """\
The assignment_map has 11 problems; nothing was changed:
  1. assignment_map: {'plain': <tensor of shape [2, 3]>}: the model has no such parameter or \
persistent buffer (a copy or a view is another tensor).
  2. assignment_map: 'words/' is assigned different scopes: {'words/': 'words/'} and \
{'old/': 'words/'}.
  3. assignment_map: 'new.dense.bias' is assigned different tensors: \
{'old/dense/bias': 'new/dense/bias'} and {'old_1/dense/bias': 'new.dense.bias'}.
  4. var_name_to_prev_var_name (assignment_map): the model has no variable 'tabel'. Did you mean \
'table'?
  5. var_name_to_prev_var_name (assignment_map): {'nwe/': 'old/'}: the model has no variables in \
'nwe/'. Did you mean 'new.' or 'new_1.' or 'new.dense.'?
  6. var_name_to_prev_var_name (assignment_map): {'new/norm/': 'old/norms/'}: model.ckpt has \
nothing of what it asks for, such as 'old/norms/weight' for 'new.norm.weight'. Did you mean \
'old/norm/beta' or 'old/norm/gamma' or 'old/norm/moving_mean'?
  7. new.dense.weight: var_name_to_prev_var_name (assignment_map) asks for 'old/dense/kernl', \
which model.ckpt does not have. Did you mean 'old/dense/kernel' or 'old_1/dense/kernel' or \
'old/dense/bias'?
  8. new_1.norm.weight: var_name_to_prev_var_name (assignment_map): {'new_1/': 'old_1/'} asks for \
'old_1/norm/weight', which model.ckpt does not have. Did you mean 'old/norm/beta' or \
'old/norm/gamma' or 'old/norm/moving_mean'?
  9. new_1.norm.bias: var_name_to_prev_var_name (assignment_map): {'new_1/': 'old_1/'} asks for \
'old_1/norm/bias', which model.ckpt does not have. Did you mean 'old/norm/beta' or \
'old_1/dense/bias' or 'old/norm/gamma'?
  10. new_1.norm.running_mean: var_name_to_prev_var_name (assignment_map): {'new_1/': 'old_1/'} \
asks for 'old_1/norm/running_mean', which model.ckpt does not have. Did you mean \
'old/norm/moving_mean' or 'old/norm/moving_variance' or 'old/norm/beta'?
  11. new_1.norm.running_var: var_name_to_prev_var_name (assignment_map): {'new_1/': 'old_1/'} \
asks for 'old_1/norm/running_var', which model.ckpt does not have. Did you mean \
'old/norm/moving_variance' or 'old/norm/moving_mean' or 'old/norm/gamma'?""",
        PlanError,
    ):
        tws.init_from_checkpoint(model, checkpoint, assignment_map)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (
            "tabel",
            "var_name_to_prev_var_name (assignment_map): the model has no variable 'tabel'. Did "
            "you mean 'table'?",
        ),
        (
            torch.zeros(1),
            "assignment_map: {'plain': <tensor of shape [1]>}: the model has no such parameter or "
            "persistent buffer (a copy or a view is another tensor).",
        ),
    ],
)
def test_a_map_for_nothing_in_the_model_is_an_error(checkpoint, target, problem):
    with says(f"The assignment_map has 1 problem; nothing was changed:\n  1. {problem}", PlanError):
        tws.init_from_checkpoint(Net(), checkpoint, {"plain": target})


@pytest.mark.parametrize(
    ("assignment_map", "message"),
    [
        (
            {"old": "new/"},
            "assignment_map: in {'old': 'new/'} the second is a scope and the first is not. A "
            "scope of the checkpoint is assigned to one of the model, both with a slash at the end "
            "({'old/': 'new/'}; '/' is the root), and a tensor to a variable.",
        ),
        (
            {"old/": "new"},
            "assignment_map: in {'old/': 'new'} the first is a scope and the second is not. A "
            "scope of the checkpoint is assigned to one of the model, both with a slash at the end "
            "({'old/': 'new/'}; '/' is the root), and a tensor to a variable.",
        ),
        (
            {"old/": torch.zeros(1)},
            "assignment_map: in {'old/': <tensor of shape [1]>} the first is a scope and the "
            "second is not. A scope of the checkpoint is assigned to one of the model, both with a "
            "slash at the end ({'old/': 'new/'}; '/' is the root), and a tensor to a variable.",
        ),
        (
            {"old": ""},
            "assignment_map: {'old': ''} is no entry. One goes from a name in the checkpoint to a "
            "variable's name, a parameter or a buffer.",
        ),
        (
            {"old": ["a", "b"]},
            "assignment_map: {'old': ['a', 'b']} is no entry. One goes from a name in the "
            "checkpoint to a variable's name, a parameter or a buffer.",
        ),
        ({}, "assignment_map is empty, which assigns nothing."),
        (
            "old/",
            "assignment_map is a mapping or a list of pairs, from names in the checkpoint to those "
            "of the model; not 'old/'.",
        ),
        (
            [("a", "b", "c")],
            "assignment_map is a mapping or a list of pairs, from names in the checkpoint to those "
            "of the model; not [('a', 'b', 'c')].",
        ),
    ],
)
def test_malformed_maps_are_errors(checkpoint, assignment_map, message):
    with says(message):
        tws.init_from_checkpoint(Net(), checkpoint, assignment_map)


def test_a_shape_that_does_not_fit_is_an_error_and_changes_nothing(checkpoint):
    model = nn.ModuleDict({"dense": nn.Linear(2, 3), "norm": nn.BatchNorm1d(5)})
    before = model.dense.weight.detach().clone()
    with pytest.raises(PlanError, match=r"norm.weight has shape \[5\], but 'old/norm/gamma' in"):
        tws.init_from_checkpoint(model, checkpoint, {"old/": "/"})
    assert torch.equal(model.dense.weight, before)


def test_a_damaged_tensor_is_an_error_and_changes_nothing(tmp_path):
    write_bundle(tmp_path / "c", [entry("a", torch.ones(2)), entry("b", torch.ones(2), crc=1)])
    model = nn.ParameterDict({name: nn.Parameter(torch.zeros(2)) for name in "ab"})
    with pytest.raises(tws.CorruptCheckpointError):
        tws.init_from_checkpoint(model, tmp_path / "c", {"/": "/"})
    assert not model.a.any()
    tws.init_from_checkpoint(model, tmp_path / "c", {"/": "/"}, verify=False)
    assert model.b.all()


def test_the_model_must_be_a_module(checkpoint):
    with says("The model must be a torch.nn.Module, not a dict."):
        tws.init_from_checkpoint({}, checkpoint, {"/": "/"})


@pytest.mark.parametrize("source", ["none.ckpt", "model.ckpt/none"])
def test_a_missing_checkpoint_is_an_error(checkpoint, source):
    with pytest.raises(tws.CheckpointNotFoundError):
        tws.init_from_checkpoint(Net(), source, {"/": "/"})


# TensorFlow's variables are made with the shapes of the torch model's, which has no layers here, so
# that the names and layouts are the same on both sides.
OLD = {
    "a/x": numbers(20, 2),
    "a/b/x": numbers(21, 2),
    "a/b/y": numbers(22, 2),
    "a_1/x": numbers(23, 2),
    "x": numbers(24, 2),
    "y": numbers(25, 2),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("names", "assignment_map"),
    [
        (["n/x", "n/b/x", "n/b/y", "n_1/x"], {"a/": "n/"}),
        (["n/x", "n/b/x", "n_1/x"], {"a/": "n/", "a_1/": "n_1/"}),
        (["n/x", "n/y", "x"], {"a/b/": "n/"}),
        (["a/x", "a/b/x", "x", "y"], {"/": "/"}),
        (["a_1/x", "x"], {"/": "/"}),
        (["n/m/x", "n/m/y", "n/x"], {"/": "n/m/"}),
        (["n/m/x", "n/m/b/y"], {"a/": "n/m/"}),
        (["x", "b/x", "b/y"], {"a/": "/"}),
        (["a/x", "a/b/x"], {"/": "/", "a_1/": "a/b/", "y": "a/x"}),
        (["n/x", "n/y"], [("a/b/x", "n/x"), ("a/b/x", "n/y")]),
        (["n/x", "n/z"], {"a/b/": "n/"}),
        (["n/x"], {"z/": "n/"}),
        (["n/x"], {"z": "n/x"}),
        (["n/x"], {"a": "n/"}),
        (["n/x"], {"x": "n/z"}),
    ],
)
def test_maps_of_names_and_scopes_as_tensorflow_does_them(tmp_path, names, assignment_map):
    import tf_oracle

    prefix = tf_oracle.save(tmp_path, {name: value.numpy() for name, value in OLD.items()})
    model = _nested({name: torch.zeros(2) for name in names})
    try:
        expected = _by_tensorflow(tf_oracle.tf1, names, prefix, assignment_map)
    except ValueError:
        with pytest.raises(SettingsError):
            tws.init_from_checkpoint(model, prefix, assignment_map)
        return
    tws.init_from_checkpoint(model, prefix, assignment_map)
    for name in names:
        np.testing.assert_array_equal(
            model.get_parameter(name.replace("/", ".")).detach().numpy(), expected[name], name
        )


def _by_tensorflow(tf1, names, prefix, assignment_map):
    with tf1.Graph().as_default(), tf1.Session() as session:
        zeros = tf1.zeros_initializer()
        variables = {name: tf1.get_variable(name, [2], initializer=zeros) for name in names}
        tf1.train.init_from_checkpoint(prefix, assignment_map)
        session.run(tf1.global_variables_initializer())
        return session.run(variables)


def _nested(values):
    """A model of plain modules, with a parameter for each name."""
    root = nn.Module()
    for name, value in values.items():
        *path, leaf = name.split("/")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, nn.Parameter(value))
    return root
