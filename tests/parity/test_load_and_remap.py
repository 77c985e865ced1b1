"""The cases of TensorFlow's own tests of its vocabulary ops, and of what was built on them.

Every test runs with both engines.
"""

from __future__ import annotations

import pytest
from engines import assert_equal, write_vocab

MATRIX = [[16.0 * row + column for column in range(16)] for row in range(5)]
NAME = "some_scope/embeddings"

NEW_ROWS = ["zero", "one", "two", "three", "four"]
OLD_ROWS = ["zero", "one", "two", "three"]
NEW_COLUMNS = ["MISSING", "knitting", "flask", "eminem"]
OLD_COLUMNS = ["knitting", "eminem", "MISSING"]


@pytest.fixture
def prefix(engine, tmp_path):
    return engine.save(tmp_path, {NAME: MATRIX})


def files(folder, **vocabularies):
    return [write_vocab(folder, name, entries, end="\n") for name, entries in vocabularies.items()]


# -- what was built on the ops: rows, columns and OOV buckets --------------------------------------


def remapped(engine, folder, prefix, *, offset=0, count, row_oov, col_oov, fill=42.0):
    """Rows and columns of the matrix by their vocabularies, with the OOV ones behind them."""
    new_rows, old_rows = files(folder, new_rows=NEW_ROWS, old_rows=OLD_ROWS)
    new_cols, old_cols = files(folder, new_cols=NEW_COLUMNS, old_cols=OLD_COLUMNS)
    rows, rows_present = engine.vocab_remapping(new_rows, old_rows, offset=offset, count=count)
    cols, cols_present = engine.vocab_remapping(new_cols, old_cols, count=4)
    rows, cols = rows + [-1] * row_oov, cols + [-1] * col_oov
    missing = len(rows) * len(cols) - rows_present * cols_present
    return engine.remap_matrix(
        prefix, NAME, rows, cols, [fill] * missing, count + row_oov, 4 + col_oov
    )


def test_rows_from_an_offset_columns_and_oov_of_both(engine, tmp_path, prefix):
    result = remapped(engine, tmp_path, prefix, offset=1, count=4, row_oov=1, col_oov=1)
    assert_equal(
        result,
        [
            [18.0, 16.0, 42.0, 17.0, 42.0],
            [34.0, 32.0, 42.0, 33.0, 42.0],
            [50.0, 48.0, 42.0, 49.0, 42.0],
            [42.0, 42.0, 42.0, 42.0, 42.0],
            [42.0, 42.0, 42.0, 42.0, 42.0],
        ],
    )


def test_weights_of_a_linear_model_with_classes(engine, tmp_path, prefix):
    """TensorFlow's [6, 5] is in two partitions."""
    result = remapped(engine, tmp_path, prefix, count=5, row_oov=1, col_oov=1)
    assert_equal(
        result,
        [
            [2.0, 0.0, 42.0, 1.0, 42.0],
            [18.0, 16.0, 42.0, 17.0, 42.0],
            [34.0, 32.0, 42.0, 33.0, 42.0],
            [50.0, 48.0, 42.0, 49.0, 42.0],
            [42.0, 42.0, 42.0, 42.0, 42.0],
            [42.0, 42.0, 42.0, 42.0, 42.0],
        ],
    )


def vocab_info(engine, folder, new, old, *, oov, **more):
    new_vocab, old_vocab = files(folder, new=new, old=old)
    return engine.vocab_info(
        new_vocab=new_vocab,
        new_vocab_size=len(new),
        num_oov_buckets=oov,
        old_vocab=old_vocab,
        backup_initializer=engine.constant(42.0),
        **more,
    )


def warm_started(engine, prefix, shape, info, *, partitions, name=NAME):
    return engine.warm_start({name: shape}, prefix, ".*", {name: info}, partitions=partitions)[name]


def test_output_weights_of_a_dnn_with_classes(engine, tmp_path, prefix):
    info = vocab_info(engine, tmp_path, NEW_COLUMNS, OLD_COLUMNS, oov=1, axis=1)
    result = warm_started(engine, prefix, (5, 5), info, partitions=2)
    assert_equal(
        result,
        [
            [2.0, 0.0, 42.0, 1.0, 42.0],
            [18.0, 16.0, 42.0, 17.0, 42.0],
            [34.0, 32.0, 42.0, 33.0, 42.0],
            [50.0, 48.0, 42.0, 49.0, 42.0],
            [66.0, 64.0, 42.0, 65.0, 42.0],
        ],
    )


def test_a_partition_of_nothing_but_oov_rows(engine, tmp_path, prefix):
    """The second of TensorFlow's two partitions begins where the vocabulary ends."""
    result = remapped(engine, tmp_path, prefix, count=5, row_oov=5, col_oov=1)
    assert_equal(
        result,
        [
            [2.0, 0.0, 42.0, 1.0, 42.0],
            [18.0, 16.0, 42.0, 17.0, 42.0],
            [34.0, 32.0, 42.0, 33.0, 42.0],
            [50.0, 48.0, 42.0, 49.0, 42.0],
            *[[42.0] * 5] * 6,
        ],
    )


def test_a_partition_of_nothing_but_oov_rows_of_an_embedding(engine, tmp_path, prefix):
    info = vocab_info(engine, tmp_path, NEW_ROWS, OLD_ROWS, oov=5)
    result = warm_started(engine, prefix, (10, 16), info, partitions=2)
    assert_equal(result, MATRIX[:4] + [[42.0] * 16] * 6)


def test_without_an_initializer_new_cells_are_zeros(engine, tmp_path, prefix):
    result = remapped(engine, tmp_path, prefix, count=5, row_oov=1, col_oov=1, fill=0.0)
    assert_equal(
        result,
        [
            [2.0, 0.0, 0.0, 1.0, 0.0],
            [18.0, 16.0, 0.0, 17.0, 0.0],
            [34.0, 32.0, 0.0, 33.0, 0.0],
            [50.0, 48.0, 0.0, 49.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0],
        ],
    )


def test_an_embedding(engine, tmp_path, prefix):
    info = vocab_info(engine, tmp_path, NEW_ROWS, OLD_ROWS, oov=1)
    result = warm_started(engine, prefix, (6, 16), info, partitions=2)
    assert_equal(result, MATRIX[:4] + [[42.0] * 16] * 2)


def test_an_embedding_with_more_oov_rows_than_entries(engine, tmp_path, prefix):
    """Rows 2 to 4 of the old matrix are old OOV rows, and no new row takes them."""
    new, old = ["one", "zero", "two", "four"], ["zero", "one"]
    info = vocab_info(engine, tmp_path, new, old, oov=5)
    result = warm_started(engine, prefix, (9, 16), info, partitions=2)
    assert_equal(result, [MATRIX[1], MATRIX[0], *[[42.0] * 16] * 7])


def test_an_embedding_of_which_only_some_old_rows_count(engine, tmp_path, prefix):
    info = vocab_info(engine, tmp_path, NEW_ROWS, OLD_ROWS, oov=1, old_vocab_size=3)
    result = warm_started(engine, prefix, (6, 16), info, partitions=2)
    assert_equal(result, MATRIX[:3] + [[42.0] * 16] * 3)


# -- the same, of the older library that these came from -------------------------------------------


@pytest.mark.parametrize(
    ("name", "partitions"), [("linear/bias_weights", 3), ("linear/bias_weights/Adagrad", 2)]
)
def test_biases_of_classes_and_their_slots(engine, tmp_path, name, partitions):
    prefix = engine.save(tmp_path, {name: [[0.0], [1.0], [2.0]]})
    info = vocab_info(engine, tmp_path, NEW_COLUMNS, OLD_COLUMNS, oov=1)
    result = warm_started(engine, prefix, (5, 1), info, partitions=partitions, name=name)
    assert_equal(result, [[2.0], [0.0], [42.0], [1.0], [42.0]])


# -- the op GenerateVocabRemapping -----------------------------------------------------------------

SHIFTED = ["MISSING", "knitting", "eminem"]


@pytest.mark.parametrize(
    ("new", "arguments", "rows", "num_present"),
    [
        pytest.param(OLD_COLUMNS, {"count": 3}, [0, 1, 2], 3, id="no_vocab_changes"),
        pytest.param(SHIFTED, {"count": 3}, [2, 0, 1], 3, id="shifted_vocab"),
        pytest.param(SHIFTED, {"offset": 1, "count": 1}, [0], 1, id="offset"),
        pytest.param(SHIFTED, {"count": 3, "old_size": 2}, [-1, 0, 1], 2, id="old_vocab_size"),
    ],
)
def test_a_remapping(engine, tmp_path, new, arguments, rows, num_present):
    new_file, old_file = files(tmp_path, new=new, old=OLD_COLUMNS)
    assert engine.vocab_remapping(new_file, old_file, **arguments) == (rows, num_present)


# -- the op LoadAndRemapMatrix ---------------------------------------------------------------------


def test_a_matrix_without_missing_cells_rows_only(engine, prefix):
    result = engine.remap_matrix(prefix, NAME, [1, 0], [], [], 2, 16)
    assert_equal(result, [MATRIX[1], MATRIX[0]])


def test_a_matrix_without_missing_cells_columns_only(engine, prefix):
    result = engine.remap_matrix(prefix, NAME, [0, 1, 2, 3, 4], [2, 0], [], 5, 2)
    assert_equal(result, [[2.0, 0.0], [18.0, 16.0], [34.0, 32.0], [50.0, 48.0], [66.0, 64.0]])


def test_a_matrix_without_missing_cells_rows_and_columns(engine, prefix):
    result = engine.remap_matrix(prefix, NAME, [1, 0, 4], [1, 15], [], 3, 2)
    assert_equal(result, [[17.0, 31.0], [1.0, 15.0], [65.0, 79.0]])


def test_missing_rows_and_columns_take_the_values_given(engine, prefix):
    result = engine.remap_matrix(prefix, NAME, [2, -1, 0], [1, -1], [42.0] * 4, 3, 2)
    assert_equal(result, [[33.0, 42.0], [42.0, 42.0], [1.0, 42.0]])


def test_the_values_are_taken_row_by_row(engine, prefix):
    """Not among TensorFlow's own cases, which all have equal values."""
    result = engine.remap_matrix(prefix, NAME, [2, -1, 0], [1, -1], [6.0, 7.0, 8.0, 9.0], 3, 2)
    assert_equal(result, [[33.0, 6.0], [7.0, 8.0], [1.0, 9.0]])


def test_all_rows_are_missing(engine, prefix):
    result = engine.remap_matrix(prefix, NAME, [-1] * 7, [], [42.0] * 112, 7, 16)
    assert_equal(result, [[42.0] * 16] * 7)


def test_all_rows_and_columns_are_missing(engine, prefix):
    result = engine.remap_matrix(prefix, NAME, [-1] * 7, [-1] * 4, [42.0] * 28, 7, 4)
    assert_equal(result, [[42.0] * 4] * 7)


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_an_old_index_twice_is_an_error(engine, prefix, axis):
    twice = [1, 0, 0, 0, 1, 2]
    rows, cols, num_rows, num_cols = (
        (twice, [], 6, 16) if axis == "rows" else ([0, 1, 2, 3, 4], twice, 5, 6)
    )
    with pytest.raises(engine.failures):
        engine.remap_matrix(prefix, NAME, rows, cols, [], num_rows, num_cols)


@pytest.mark.parametrize("count", [0, 5])
def test_too_few_and_too_many_values_are_errors(engine, prefix, count):
    with pytest.raises(engine.failures):
        engine.remap_matrix(prefix, NAME, [2, -1, 0], [1, -1], [42.0] * count, 3, 2)


@pytest.mark.parametrize("shape", [(9, 4), (6, 3)])
@pytest.mark.parametrize(
    ("partitions", "max_rows"),
    [(1, 3), (1, 4), (1, 10), (1, -1), (3, 3), (3, 1), (3, 10), (3, -1)],
)
def test_how_many_rows_are_held_at_a_time_makes_no_difference(
    engine, tmp_path, shape, partitions, max_rows
):
    num_rows, num_cols = shape
    values = [
        [float(num_cols * row + column) for column in range(num_cols)] for row in range(num_rows)
    ]
    prefix = engine.save(tmp_path, {"matrix": values}, partitions=partitions)

    def remap(rows, missing):
        return engine.remap_matrix(
            prefix, "matrix", rows, [], [42.0] * missing, len(rows), num_cols, max_rows
        )

    fresh = [42.0] * num_cols
    assert_equal(remap(list(range(num_rows))[::-1], 0), values[::-1])
    middle = [-1, -1, *range(1, num_rows - 1), -1, -1, -1]
    assert_equal(remap(middle, 5 * num_cols), [fresh] * 2 + values[1:-1] + [fresh] * 3)
    assert_equal(remap([-1] * 7, 7 * num_cols), [fresh] * 7)
