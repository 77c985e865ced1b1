"""load_and_remap_matrix: every argument, and random remappings against TensorFlow's own."""

from __future__ import annotations

import doctest
import functools

import numpy as np
import pytest
import torch
from bundle_writer import FULL, BundleEntry, BundleSlice, DType, write_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remapping_helpers import entry, says, seeded
from torch import nn
from v1_writer import whole, write_v1

import torch_warmstart as tws
from torch_warmstart import SettingsError
from torch_warmstart import tensorflow_names as tf_compat
from torch_warmstart.formats.base import Checkpoint

M = torch.arange(80.0).view(5, 16)
REMAP = functools.partial(tws.load_and_remap_matrix, {"m": M}, "m")


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
        REMAP([-1, 2], None, nn.init.xavier_uniform_, 2, 16, generator=seeded(3)) for _ in "ab"
    ]
    assert torch.equal(*results)
    assert torch.equal(results[0][0], nn.init.xavier_uniform_(torch.empty(2, 16), 1, seeded(3))[0])
    assert torch.equal(results[0][1], M[2])


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
