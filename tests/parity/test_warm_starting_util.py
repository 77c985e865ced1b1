"""The cases of TensorFlow's own tests of `warm_start`, in their order.

Every test runs with both engines. Where TensorFlow partitions the new variable, torch's is whole,
and what is expected is the parts joined.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engines import ATTRIBUTE, Ours, TensorFlow, assert_equal, write_vocab

import torch_warmstart as tws

FRUITS = [[0.5], [1.0], [1.5], [2.0]]
OLD_FRUITS = ["apple", "banana", "guava", "orange"]
FIVE_FRUITS = ["orange", "guava", "banana", "apple", "raspberry"]
SIX_FRUITS = [*FIVE_FRUITS, "blueberry"]
CLASSES = [[0.5, 0.3], [1.0, 0.8], [1.5, 1.2], [2.0, 2.3]]
OLD_CLASSES = ["apple", "orange"]
NEW_CLASSES = ["orange", "apple", "banana"]


def vocab_info(engine, folder, new, old, *, oov=0, **more):
    return engine.vocab_info(
        new_vocab=write_vocab(folder, "new_vocab", new),
        new_vocab_size=more.pop("new_size", len(new)),
        num_oov_buckets=oov,
        old_vocab=write_vocab(folder, "old_vocab", old),
        **more,
    )


# -- one variable, whole or partitioned ------------------------------------------------------------


def test_01_a_variable(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_weights": FRUITS})
    warmed = engine.warm_start({"fruit_weights": (4, 1)}, prefix)
    assert_equal(warmed["fruit_weights"], [[0.5], [1.0], [1.5], [2.0]])


def test_02_the_old_variable_was_partitioned(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_weights": FRUITS}, partitions=2)
    warmed = engine.warm_start({"fruit_weights": (4, 1)}, prefix)
    assert_equal(warmed["fruit_weights"], [[0.5], [1.0], [1.5], [2.0]])


def test_03_the_new_variable_is_partitioned(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_weights": FRUITS})
    warmed = engine.warm_start({"fruit_weights": (4, 1)}, prefix, partitions=2)
    assert_equal(warmed["fruit_weights"], [[0.5], [1.0], [1.5], [2.0]])


def test_04_both_are_partitioned_and_the_scope_was_another(engine, tmp_path):
    prefix = engine.save(tmp_path, {"old_scope/fruit_weights": FRUITS}, partitions=2)
    warmed = engine.warm_start(
        {"new_scope/fruit_weights": (4, 1)},
        prefix,
        var_name_to_prev_var_name={"new_scope/fruit_weights": "old_scope/fruit_weights"},
        partitions=2,
    )
    assert_equal(warmed["new_scope/fruit_weights"], [[0.5], [1.0], [1.5], [2.0]])


# -- one variable and a vocabulary -----------------------------------------------------------------


def test_05_rows_follow_a_vocabulary(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_weights": FRUITS})
    info = vocab_info(engine, tmp_path, FIVE_FRUITS, OLD_FRUITS)
    warmed = engine.warm_start({"fruit_weights": (5, 1)}, prefix, ".*", {"fruit_weights": info})
    assert_equal(warmed["fruit_weights"], [[2.0], [1.5], [1.0], [0.5], [0.0]])


def test_06_columns_follow_a_vocabulary(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_output_layer": CLASSES})
    info = vocab_info(engine, tmp_path, NEW_CLASSES, OLD_CLASSES, axis=1)
    warmed = engine.warm_start(
        {"fruit_output_layer": (4, 3)}, prefix, ".*", {"fruit_output_layer": info}
    )
    assert_equal(
        warmed["fruit_output_layer"],
        [[0.3, 0.5, 0.0], [0.8, 1.0, 0.0], [1.2, 1.5, 0.0], [2.3, 2.0, 0.0]],
    )


def test_07_only_the_first_two_old_entries_count(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_weights": FRUITS})
    info = vocab_info(engine, tmp_path, FIVE_FRUITS, OLD_FRUITS, old_vocab_size=2)
    warmed = engine.warm_start({"fruit_weights": (5, 1)}, prefix, ".*", {"fruit_weights": info})
    assert_equal(warmed["fruit_weights"], [[0.0], [0.0], [1.0], [0.5], [0.0]])


def test_08_rows_of_an_old_partitioned_variable(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_weights": FRUITS}, partitions=2)
    info = vocab_info(engine, tmp_path, FIVE_FRUITS, OLD_FRUITS)
    warmed = engine.warm_start({"fruit_weights": (5, 1)}, prefix, ".*", {"fruit_weights": info})
    assert_equal(warmed["fruit_weights"], [[2.0], [1.5], [1.0], [0.5], [0.0]])


def test_09_columns_of_an_old_partitioned_variable(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_output_layer": CLASSES}, partitions=2)
    info = vocab_info(engine, tmp_path, NEW_CLASSES, OLD_CLASSES, axis=1)
    warmed = engine.warm_start(
        {"fruit_output_layer": (4, 3)}, prefix, ".*", {"fruit_output_layer": info}
    )
    assert_equal(
        warmed["fruit_output_layer"],
        [[0.3, 0.5, 0.0], [0.8, 1.0, 0.0], [1.2, 1.5, 0.0], [2.3, 2.0, 0.0]],
    )


def test_10_rows_of_a_new_partitioned_variable_with_an_oov_row(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_weights": FRUITS})
    info = vocab_info(engine, tmp_path, FIVE_FRUITS, OLD_FRUITS, oov=1)
    warmed = engine.warm_start(
        {"fruit_weights": (6, 1)}, prefix, ".*", {"fruit_weights": info}, partitions=2
    )
    assert_equal(warmed["fruit_weights"][:3], [[2.0], [1.5], [1.0]])
    assert_equal(warmed["fruit_weights"][3:], [[0.5], [0.0], [0.0]])


def test_11_columns_of_a_new_partitioned_variable(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_output_layer": CLASSES})
    info = vocab_info(engine, tmp_path, NEW_CLASSES, OLD_CLASSES, axis=1)
    warmed = engine.warm_start(
        {"fruit_output_layer": (4, 3)}, prefix, ".*", {"fruit_output_layer": info}, partitions=2
    )
    assert_equal(warmed["fruit_output_layer"][:2], [[0.3, 0.5, 0.0], [0.8, 1.0, 0.0]])
    assert_equal(warmed["fruit_output_layer"][2:], [[1.2, 1.5, 0.0], [2.3, 2.0, 0.0]])


def test_12_rows_and_both_variables_are_partitioned(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_weights": FRUITS}, partitions=2)
    info = vocab_info(engine, tmp_path, SIX_FRUITS, OLD_FRUITS)
    warmed = engine.warm_start(
        {"fruit_weights": (6, 1)}, prefix, ".*", {"fruit_weights": info}, partitions=2
    )
    assert_equal(warmed["fruit_weights"][:3], [[2.0], [1.5], [1.0]])
    assert_equal(warmed["fruit_weights"][3:], [[0.5], [0.0], [0.0]])


def test_13_columns_and_both_variables_are_partitioned(engine, tmp_path):
    prefix = engine.save(tmp_path, {"fruit_output_layer": CLASSES}, partitions=2)
    info = vocab_info(engine, tmp_path, NEW_CLASSES, OLD_CLASSES, axis=1)
    warmed = engine.warm_start(
        {"fruit_output_layer": (4, 3)}, prefix, ".*", {"fruit_output_layer": info}, partitions=2
    )
    assert_equal(warmed["fruit_output_layer"][:2], [[0.3, 0.5, 0.0], [0.8, 1.0, 0.0]])
    assert_equal(warmed["fruit_output_layer"][2:], [[1.2, 1.5, 0.0], [2.3, 2.0, 0.0]])


# -- the ways to select; case 17 is in test_slots_case.py ------------------------------------------

ONES = [[1.0]] * 10


def test_14_a_list_of_variables(engine, tmp_path):
    engine.save(tmp_path, {"v1": ONES})
    warmed = engine.warm_start({"v1": (10, 1)}, str(tmp_path), variables=["v1"])
    assert_equal(warmed["v1"], ONES)


def test_15_a_list_of_strings(engine, tmp_path):
    engine.save(tmp_path, {"v1": ONES})
    warmed = engine.warm_start({"v1": (10, 1)}, str(tmp_path), ["v1"])
    assert_equal(warmed["v1"], ONES)


def test_16_two_variables_from_the_same_old_one(engine, tmp_path):
    engine.save(tmp_path, {"v1": ONES})
    warmed = engine.warm_start(
        {"v1": (10, 1), "v2": (10, 1)},
        str(tmp_path),
        ["v1", "v2"],
        var_name_to_prev_var_name={"v2": "v1"},
    )
    assert_equal(warmed["v1"], ONES)
    assert_equal(warmed["v2"], ONES)


# -- linear models over feature columns ------------------------------------------------------------


def linear(column):
    return f"linear_model/{column}/weights"


def test_18_a_column_of_integers(engine, tmp_path):
    engine.save(tmp_path, {linear("sc_int"): ONES})
    warmed = engine.warm_start({linear("sc_int"): (10, 1)}, str(tmp_path), ".*sc_int.*")
    assert_equal(warmed[linear("sc_int")], ONES)


def test_19_a_hashed_column(engine, tmp_path):
    values = np.random.default_rng(19).normal(size=(15, 1)).clip(-2, 2).astype(np.float32)
    engine.save(tmp_path, {linear("sc_hash"): values})
    warmed = engine.warm_start({linear("sc_hash"): (15, 1)}, str(tmp_path), ".*sc_hash.*")
    assert_equal(warmed[linear("sc_hash")], values)


def test_20_a_column_whose_vocabulary_is_the_same(engine, tmp_path):
    engine.save(tmp_path, {linear("sc_vocab"): [[1.0]] * 4})
    warmed = engine.warm_start({linear("sc_vocab"): (4, 1)}, str(tmp_path), ".*sc_vocab.*")
    assert_equal(warmed[linear("sc_vocab")], [[1.0], [1.0], [1.0], [1.0]])


def test_21_a_prefix_in_place_of_a_directory(engine, tmp_path):
    prefix = engine.save(tmp_path, {linear("sc_vocab"): [[1.0]] * 4})
    assert prefix == str(tmp_path / "model-0")
    warmed = engine.warm_start({linear("sc_vocab"): (4, 1)}, prefix, ".*sc_vocab.*")
    assert_equal(warmed[linear("sc_vocab")], [[1.0], [1.0], [1.0], [1.0]])


def test_22_both_vocabularies_are_used_in_part(engine, tmp_path):
    engine.save(tmp_path, {linear("sc_vocab"): [[1.0]] * 2})
    info = vocab_info(
        engine,
        tmp_path,
        ["apple", "banana", "guava", "orange"],
        ["apple", "guava", "banana"],
        new_size=2,
        old_vocab_size=2,
    )
    warmed = engine.warm_start(
        {linear("sc_vocab"): (2, 1)}, str(tmp_path), ".*sc_vocab.*", {linear("sc_vocab"): info}
    )
    assert_equal(warmed[linear("sc_vocab")], [[1.0], [0.0]])


def test_23_a_bucketized_column(engine, tmp_path):
    values = np.random.default_rng(23).normal(size=(5, 1)).astype(np.float32)
    engine.save(tmp_path, {linear("real_bucketized"): values})
    warmed = engine.warm_start(
        {linear("real_bucketized"): (5, 1)}, str(tmp_path), ".*real_bucketized.*"
    )
    assert_equal(warmed[linear("real_bucketized")], values)


def test_24_many_columns_and_a_bias(engine, tmp_path):
    random = np.random.default_rng(24)
    shapes = {
        linear("sc_int"): (10, 1),
        linear("sc_hash"): (15, 1),
        linear("sc_keys"): (4, 1),
        linear("sc_vocab"): (4, 1),
        linear("real_bucketized"): (5, 1),
        linear("sc_keys_X_sc_vocab"): (20, 1),
        "linear_model/bias_weights": (1,),
    }
    values = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    engine.save(tmp_path, values)
    info = vocab_info(engine, tmp_path, OLD_FRUITS, OLD_FRUITS)
    warmed = engine.warm_start(
        shapes, str(tmp_path), var_name_to_vocab_info={linear("sc_vocab"): info}
    )
    for name, value in values.items():
        assert_equal(warmed[name], value)


KEYS = [[0.25], [-0.5], [0.75], [-1.0]]
VOCAB = [[0.5], [1.0], [2.0], [3.0]]


def more_settings(engine, folder, pattern, **more):
    """Cases 25 to 27: a hashed column, one that had another name, one with a new vocabulary."""
    hashed = np.random.default_rng(25).normal(size=(15, 1)).astype(np.float32)
    saved = {
        linear("sc_hash"): hashed,
        linear("some_other_name"): KEYS,
        linear("sc_vocab"): VOCAB,
    }
    engine.save(folder, saved)
    shapes = {linear("sc_hash"): (15, 1), linear("sc_keys"): (4, 1), linear("sc_vocab"): (6, 1)}
    return engine.warm_start(
        shapes,
        str(folder),
        pattern,
        {linear("sc_vocab"): vocab_info(engine, folder, SIX_FRUITS, OLD_FRUITS)},
        {linear("sc_keys"): linear("some_other_name")},
        **more,
    )


def test_25_pattern_vocabulary_and_rename_with_partitions(engine, tmp_path):
    warmed = more_settings(engine, tmp_path, ".*(sc_keys|sc_vocab).*", partitions=2)
    assert_equal(warmed[linear("sc_keys")][:2], [[0.25], [-0.5]])
    assert_equal(warmed[linear("sc_keys")][2:], [[0.75], [-1.0]])
    assert_equal(warmed[linear("sc_hash")][:8], [[0.0]] * 8)
    assert_equal(warmed[linear("sc_hash")][8:], [[0.0]] * 7)
    assert_equal(warmed[linear("sc_vocab")][:3], [[3.0], [2.0], [1.0]])
    assert_equal(warmed[linear("sc_vocab")][3:], [[0.5], [0.0], [0.0]])


def test_26_pattern_vocabulary_and_rename_without_partitions(engine, tmp_path):
    warmed = more_settings(engine, tmp_path, ".*(sc_keys|sc_vocab).*")
    assert_equal(warmed[linear("sc_keys")], [[0.25], [-0.5], [0.75], [-1.0]])
    assert_equal(warmed[linear("sc_hash")], [[0.0]] * 15)
    assert_equal(warmed[linear("sc_vocab")], [[3.0], [2.0], [1.0], [0.5], [0.0], [0.0]])


def test_27_none_takes_only_what_has_a_vocabulary(engine, tmp_path):
    """The rename of a variable that is not taken is no error."""
    warmed = more_settings(engine, tmp_path, None, partitions=2)
    assert_equal(warmed[linear("sc_keys")], [[0.0]] * 4)
    assert_equal(warmed[linear("sc_hash")], [[0.0]] * 15)
    assert_equal(warmed[linear("sc_vocab")], [[3.0], [2.0], [1.0], [0.5], [0.0], [0.0]])


# -- embedding columns -----------------------------------------------------------------------------

EMBEDDING = [[0.5, 0.4], [1.0, 1.1], [2.0, 2.2], [3.0, 3.3]]
REMAPPED_EMBEDDING = [
    [3.0, 3.3],
    [2.0, 2.2],
    [1.0, 1.1],
    [0.5, 0.4],
    [0.42, 0.42],
    [0.42, 0.42],
]


def embedding_info(engine, folder):
    backup = engine.constant(0.42)
    return vocab_info(engine, folder, SIX_FRUITS, OLD_FRUITS, backup_initializer=backup)


def test_28_an_embedding_column(engine, tmp_path):
    name = "input_layer/sc_vocab_embedding/embedding_weights"
    engine.save(tmp_path, {name: EMBEDDING})
    info = embedding_info(engine, tmp_path)
    warmed = engine.warm_start(
        {name: (6, 2)}, str(tmp_path), var_name_to_vocab_info={name: info}, partitions=2
    )
    assert_equal(warmed[name][:3], [[3.0, 3.3], [2.0, 2.2], [1.0, 1.1]])
    assert_equal(warmed[name][3:], [[0.5, 0.4], [0.42, 0.42], [0.42, 0.42]])


def test_29_an_embedding_column_in_a_linear_model(engine, tmp_path):
    embedding = "linear_model/sc_vocab_embedding/embedding_weights"
    weights = "linear_model/sc_vocab_embedding/weights"
    engine.save(tmp_path, {embedding: EMBEDDING, weights: [[0.69], [0.71]]})
    info = embedding_info(engine, tmp_path)
    warmed = engine.warm_start(
        {embedding: (6, 2), weights: (2, 1)},
        str(tmp_path),
        ".*sc_vocab.*",
        {embedding: info},
        partitions=2,
    )
    assert_equal(warmed[weights], [[0.69], [0.71]])
    assert_equal(warmed[embedding], REMAPPED_EMBEDDING)


# -- errors ----------------------------------------------------------------------------------------


def test_30a_a_list_in_a_list_of_variables_is_an_error(engine, tmp_path):
    prefix = engine.save(tmp_path, {"x": FRUITS})
    with pytest.raises(engine.failures):
        engine.warm_start({"x": (4, 1)}, prefix, [[torch.zeros(4, 1)]])


def test_30b_a_vocab_info_of_an_unknown_variable_is_an_error(engine, tmp_path):
    prefix = engine.save(tmp_path, {"x": FRUITS})
    info = vocab_info(engine, tmp_path, OLD_FRUITS, OLD_FRUITS)
    with pytest.raises(ValueError, match="y"):
        engine.warm_start({"x": (4, 1)}, prefix, ".*", {"y": info})


def test_30c_a_rename_of_an_unknown_variable_is_an_error(engine, tmp_path):
    prefix = engine.save(tmp_path, {"x": FRUITS})
    with pytest.raises(ValueError, match="y"):
        engine.warm_start({"x": (4, 1)}, prefix, var_name_to_prev_var_name={"y": "x"})


# -- object-based checkpoints ----------------------------------------------------------------------


def test_31_an_object_based_checkpoint(engine, tmp_path):
    """The variable is found by the name it had, not by the attribute it was kept in."""
    engine.save_objects(tmp_path, {"fruit_weights": FRUITS})
    warmed = engine.warm_start({"fruit_weights": (4, 1)}, str(tmp_path))
    assert_equal(warmed["fruit_weights"], [[0.5], [1.0], [1.5], [2.0]])
    assert ("v0" + ATTRIBUTE, (4, 1)) in tws.list_variables(tmp_path)


@pytest.mark.tensorflow
def test_31b_ours_reads_the_object_based_checkpoint_that_tensorflow_wrote(tmp_path):
    pytest.importorskip("tensorflow")
    TensorFlow().save_objects(tmp_path, {"fruit_weights": FRUITS})
    warmed = Ours().warm_start({"fruit_weights": (4, 1)}, str(tmp_path))
    assert_equal(warmed["fruit_weights"], [[0.5], [1.0], [1.5], [2.0]])
