"""Where we deviate from TensorFlow on purpose: what it does, and what we do instead.

Each test runs with both engines, so that a deviation is also known to be one. docs/tf-parity.md
lists them all, with the reasons; those that other tests pin are not repeated here.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from engines import (
    Ours,
    assert_equal,
    model_of,
    write_checkpoint,
    write_vocab,
)
from torch import nn

import torch_warmstart as tws

FRUITS = [[0.5], [1.0], [1.5], [2.0]]
OLD = ["apple", "banana", "guava", "orange"]
NEW = ["orange", "fig", "apple"]
ZEROS = [[0.0]] * 4


@pytest.fixture
def prefix(engine, tmp_path):
    return engine.save(tmp_path, {"fruit": FRUITS})


def vocab_info(engine, folder, new=NEW, old=OLD, **changes):
    fields = {
        "new_vocab": write_vocab(folder, "new_vocab", new),
        "new_vocab_size": len(new),
        "num_oov_buckets": 0,
        "old_vocab": write_vocab(folder, "old_vocab", old),
    }
    return engine.vocab_info(**{**fields, **changes})


# -- selection -------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", [["fruit", "f.*"], ["fruit", "fruit"]])
def test_overlapping_patterns_select_once(engine, prefix, selection):
    warm_start = partial(engine.warm_start, {"fruit": (4, 1)}, prefix, selection)
    if engine.is_tensorflow:
        with pytest.raises(ValueError, match="same name"):
            warm_start()
    else:
        assert_equal(warm_start()["fruit"], FRUITS)


@pytest.mark.parametrize("selection", ["zzz", ["zzz"], ["ruit"]])
def test_a_pattern_that_selects_nothing_is_an_error(engine, prefix, selection):
    warm_start = partial(engine.warm_start, {"fruit": (4, 1)}, prefix, selection)
    if engine.is_tensorflow:
        assert_equal(warm_start()["fruit"], ZEROS)
    else:
        with pytest.raises(tws.PlanError, match="matches none"):
            warm_start()


@pytest.mark.parametrize("selection", ["", []])
def test_an_empty_selection_is_an_error(engine, prefix, selection):
    warm_start = partial(engine.warm_start, {"fruit": (4, 1)}, prefix, selection)
    if engine.is_tensorflow:
        assert_equal(warm_start()["fruit"], ZEROS)
    else:
        with pytest.raises(tws.SettingsError, match="empty"):
            warm_start()


def test_an_empty_pattern_in_a_list_is_an_error(engine, prefix):
    warm_start = partial(engine.warm_start, {"fruit": (4, 1)}, prefix, [""])
    if engine.is_tensorflow:
        assert warm_start()["fruit"].tolist() != ZEROS
    else:
        with pytest.raises(tws.SettingsError, match="empty pattern"):
            warm_start()


def test_none_without_a_vocab_info_is_an_error(engine, prefix):
    warm_start = partial(engine.warm_start, {"fruit": (4, 1)}, prefix, None)
    if engine.is_tensorflow:
        assert_equal(warm_start()["fruit"], ZEROS)
    else:
        with pytest.raises(tws.PlanError, match="there is none"):
            warm_start()


def test_patterns_select_without_a_graph(engine, prefix):
    """TensorFlow looks variables up in its graph, and eager mode has none."""
    if engine.is_tensorflow:
        import tensorflow as tf

        fruit = tf.Variable(ZEROS, name="fruit")
        tf.compat.v1.train.warm_start(prefix, ".*")
        assert fruit.numpy().tolist() == ZEROS
    else:
        assert_equal(engine.warm_start({"fruit": (4, 1)}, prefix, ".*")["fruit"], FRUITS)


def test_a_warm_start_happens_whenever_it_is_asked_for(tmp_path):
    """An estimator leaves it out, without a word, where its directory has a checkpoint."""
    prefix = write_checkpoint(tmp_path, {"fruit": FRUITS})
    model = model_of({"fruit": torch.zeros(4, 1)})
    for trained in (0.0, 7.0):
        with torch.no_grad():
            model.fruit.fill_(trained)
        tws.warm_start(model, prefix)
        assert model.fruit.tolist() == FRUITS


def test_a_new_variable_in_partitions_has_no_names_of_its_own(engine, prefix):
    """TensorFlow selects among `fruit/part_0` and `fruit/part_1`; `fruit[^/]` matches neither."""
    warmed = engine.warm_start({"fruit": (4, 1)}, prefix, ["fruit[^/]"], partitions=2)
    assert_equal(warmed["fruit"], ZEROS if engine.is_tensorflow else FRUITS)


def test_a_frozen_parameter_is_trainable(tmp_path):
    """TensorFlow's `trainable=False` is a buffer in torch; `requires_grad=False` is a state."""
    model = model_of({"fruit": torch.zeros(4, 1)}).requires_grad_(False)
    tws.warm_start(model, write_checkpoint(tmp_path, {"fruit": FRUITS}))
    assert model.fruit.tolist() == FRUITS


def test_buffers_that_a_str_leaves_behind_are_noted(tmp_path):
    """TensorFlow leaves moving statistics behind in silence."""
    values = {"norm/gamma": [1.0], "norm/beta": [1.0], "norm/moving_mean": [5.0]}
    model = nn.ModuleDict({"norm": nn.BatchNorm1d(1)})
    report = tws.warm_start(model, write_checkpoint(tmp_path, values))
    assert model["norm"].running_mean.tolist() == [0]
    assert "'norm.running_mean'" in str(report.notes[0])
    assert "vars_to_warm_start=['.*']" in str(report.notes[0])


# -- names -----------------------------------------------------------------------------------------


def test_output_numbers_in_the_dicts_are_forgiven(engine, prefix):
    warm_start = partial(
        engine.warm_start,
        {"new": (4, 1)},
        prefix,
        var_name_to_prev_var_name={"new": "fruit:0"},
    )
    if engine.is_tensorflow:
        with pytest.raises(ValueError, match="fruit:0 is not found"):
            warm_start()
    else:
        assert_equal(warm_start()["new"], FRUITS)


def test_an_output_number_in_a_key_of_a_dict_is_forgiven(engine, prefix):
    warm_start = partial(
        engine.warm_start,
        {"new": (4, 1)},
        prefix,
        var_name_to_prev_var_name={"new:0": "fruit"},
    )
    if engine.is_tensorflow:
        with pytest.raises(ValueError, match="new is not found"):
            warm_start()
    else:
        assert_equal(warm_start()["new"], FRUITS)


def test_a_rename_leaves_the_names_of_an_object_graph_in_use(engine, tmp_path):
    engine.save_objects(tmp_path, {"fruit": FRUITS, "old_vegetable": ZEROS})
    warm_start = partial(
        engine.warm_start,
        {"fruit": (4, 1), "vegetable": (4, 1)},
        str(tmp_path),
        var_name_to_prev_var_name={"vegetable": "v1/.ATTRIBUTES/VARIABLE_VALUE"},
    )
    if engine.is_tensorflow:
        with pytest.raises(ValueError, match="fruit is not found"):
            warm_start()
    else:
        assert_equal(warm_start()["fruit"], FRUITS)


def test_none_needs_only_what_it_takes_in_an_object_based_checkpoint(engine, tmp_path):
    engine.save_objects(tmp_path, {"fruit": FRUITS})
    warm_start = partial(
        engine.warm_start,
        {"fruit": (3, 1), "head": (2, 2)},
        str(tmp_path),
        None,
        {"fruit": vocab_info(engine, tmp_path)},
    )
    if engine.is_tensorflow:
        with pytest.raises(ValueError, match="head"):
            warm_start()
    else:
        assert_equal(warm_start()["fruit"], [[2.0], [0.0], [0.5]])


# -- checks ----------------------------------------------------------------------------------------


def test_nothing_has_changed_when_an_entry_was_not_used(tmp_path):
    """In TensorFlow the variables are warm-started by then."""
    prefix = write_checkpoint(tmp_path, {"fruit": FRUITS})
    model = model_of({"fruit": torch.zeros(4, 1)})
    settings = tws.WarmStartSettings(prefix, var_name_to_prev_var_name={"furit": "fruit"})
    with pytest.raises(tws.PlanError, match="Did you mean 'fruit'"):
        tws.warm_start(model, settings)
    assert model.fruit.tolist() == ZEROS


def test_both_dicts_are_checked_before_anything_is_said(engine, prefix, tmp_path):
    with pytest.raises(ValueError, match="(?s).") as raised:
        engine.warm_start(
            {"fruit": (4, 1)}, prefix, ".*", {"plum": vocab_info(engine, tmp_path)}, {"pear": "x"}
        )
    assert "pear" in str(raised.value)
    assert ("plum" in str(raised.value)) is not engine.is_tensorflow


def test_what_is_missing_may_be_kept(tmp_path):
    """TensorFlow takes all or fails."""
    prefix = write_checkpoint(tmp_path, {"fruit": FRUITS})
    model = model_of({"fruit": torch.zeros(4, 1), "head": torch.ones(1)})
    with pytest.raises(tws.PlanError, match="head is not in the checkpoint"):
        tws.warm_start(model, prefix)
    missing, _ = tws.warm_start(model, tws.WarmStartSettings(prefix, on_missing="keep"))
    assert missing == ("head",)
    assert model.fruit.tolist() == FRUITS


# -- vocabularies ----------------------------------------------------------------------------------


def test_a_variable_with_too_few_rows_is_an_error(engine, prefix, tmp_path):
    """TensorFlow loads as many as there are; the last of these three has the OOV row cut off."""
    info = vocab_info(engine, tmp_path, num_oov_buckets=1)
    warm_start = partial(engine.warm_start, {"fruit": (3, 1)}, prefix, ".*", {"fruit": info})
    if engine.is_tensorflow:
        assert_equal(warm_start()["fruit"], [[2.0], [0.0], [0.5]])
    else:
        with pytest.raises(tws.PlanError, match="has size 3 along axis 0, but .* describes 4"):
            warm_start()


def test_a_negative_number_of_oov_rows_is_an_error(engine, prefix, tmp_path):
    def warm_start():
        info = vocab_info(engine, tmp_path, num_oov_buckets=-1)
        return engine.warm_start({"fruit": (2, 1)}, prefix, ".*", {"fruit": info})

    if engine.is_tensorflow:
        assert_equal(warm_start()["fruit"], [[2.0], [0.0]])
    else:
        with pytest.raises(tws.SettingsError, match="num_oov_buckets"):
            warm_start()


CLASSES = [[0.5, 0.3], [1.0, 0.8]]


def test_old_vocab_size_counts_for_columns_too(engine, tmp_path):
    prefix = engine.save(tmp_path, {"out": CLASSES})
    info = vocab_info(engine, tmp_path, ["b", "a"], ["a", "b"], axis=1, old_vocab_size=1)
    warmed = engine.warm_start({"out": (2, 2)}, prefix, ".*", {"out": info})
    ignored, counted = [[0.3, 0.5], [0.8, 1.0]], [[0.0, 0.5], [0.0, 1.0]]
    assert_equal(warmed["out"], ignored if engine.is_tensorflow else counted)


def test_an_old_entry_past_the_last_column_is_an_error(engine, tmp_path):
    """In TensorFlow the column is what happened to be in memory."""
    prefix = engine.save(tmp_path, {"out": CLASSES})
    info = vocab_info(engine, tmp_path, ["c", "a"], ["a", "b", "c"], axis=1)
    warm_start = partial(engine.warm_start, {"out": (2, 2)}, prefix, ".*", {"out": info})
    if engine.is_tensorflow:
        assert_equal(warm_start()["out"][:, 1:], [[0.5], [1.0]])
    else:
        with pytest.raises(tws.PlanError, match="old_vocab"):
            warm_start()


def test_fewer_rows_beside_a_vocabulary_of_columns_are_an_error(engine, tmp_path):
    prefix = engine.save(tmp_path, {"out": CLASSES})
    info = vocab_info(engine, tmp_path, ["b", "a"], ["a", "b"], axis=1)
    warm_start = partial(engine.warm_start, {"out": (1, 2)}, prefix, ".*", {"out": info})
    if engine.is_tensorflow:
        assert_equal(warm_start()["out"], [[0.3, 0.5]])
    else:
        with pytest.raises(tws.PlanError, match="apart from axis 1"):
            warm_start()


def test_an_entry_twice_is_an_error_wherever_a_variable_would_be_cut(engine, prefix, tmp_path):
    """In TensorFlow only within one part; in two parts each entry has its row."""
    info = vocab_info(engine, tmp_path, ["apple", "fig", "apple", "kiwi"])
    warm_start = partial(
        engine.warm_start, {"fruit": (4, 1)}, prefix, ".*", {"fruit": info}, partitions=2
    )
    if engine.is_tensorflow:
        assert_equal(warm_start()["fruit"], [[0.5], [0.0], [0.5], [0.0]])
    else:
        with pytest.raises(tws.PlanError, match="has an entry twice"):
            warm_start()


def test_a_variable_that_would_be_cut_along_its_columns_is_remapped(engine, tmp_path):
    prefix = engine.save(tmp_path, {"out": CLASSES})
    info = vocab_info(engine, tmp_path, ["b", "a"], ["a", "b"])
    warm_start = partial(
        engine.warm_start,
        {"out": (2, 2)},
        prefix,
        ".*",
        {"out": info},
        partitions=2,
        partition_axis=1,
    )
    if engine.is_tensorflow:
        with pytest.raises(engine.failures):
            warm_start()
    else:
        assert_equal(warm_start()["out"], [[1.0, 0.8], [0.5, 0.3]])


def test_a_vector_is_remapped(engine, tmp_path):
    prefix = engine.save(tmp_path, {"bias": [0.5, 1.0, 1.5, 2.0]})
    info = vocab_info(engine, tmp_path)
    warm_start = partial(engine.warm_start, {"bias": (3,)}, prefix, ".*", {"bias": info})
    if engine.is_tensorflow:
        with pytest.raises(IndexError):
            warm_start()
    else:
        assert_equal(warm_start()["bias"], [2.0, 0.0, 0.5])


def test_a_third_axis_is_remapped(engine, tmp_path):
    if engine.is_tensorflow:
        with pytest.raises(ValueError, match="axis"):
            vocab_info(engine, tmp_path, axis=2)
    else:
        prefix = engine.save(tmp_path, {"cube": [[[1.0, 2.0, 3.0, 4.0]]]})
        info = vocab_info(engine, tmp_path, axis=2)
        warmed = engine.warm_start({"cube": (1, 1, 3)}, prefix, ".*", {"cube": info})
        assert_equal(warmed["cube"], [[[4.0, 0.0, 1.0]]])


def test_initialisers_see_the_full_shape(engine, prefix, tmp_path):
    """TensorFlow asks for [missing cells, 1] and cannot run those that look at the shape."""
    if engine.is_tensorflow:
        import tensorflow as tf

        glorot = tf.compat.v1.glorot_uniform_initializer()
        info = vocab_info(engine, tmp_path, backup_initializer=glorot)
        with pytest.raises(TypeError):
            engine.warm_start({"fruit": (3, 1)}, prefix, ".*", {"fruit": info})
    else:
        info = vocab_info(engine, tmp_path, backup_initializer=nn.init.xavier_uniform_)
        warmed = engine.warm_start({"fruit": (3, 1)}, prefix, ".*", {"fruit": info})
        assert 0 < abs(warmed["fruit"][1].item()) <= (6 / (3 + 1)) ** 0.5


def test_all_entries_of_the_new_vocabulary_may_be_meant(engine, prefix, tmp_path):
    """TensorFlow has -1 for the old one only."""
    info = vocab_info(engine, tmp_path, new_vocab_size=-1)
    warm_start = partial(engine.warm_start, {"fruit": (3, 1)}, prefix, ".*", {"fruit": info})
    if engine.is_tensorflow:
        with pytest.raises(engine.failures):
            warm_start()
    else:
        assert_equal(warm_start()["fruit"], [[2.0], [0.0], [0.5]])


def test_a_vocabulary_may_be_a_sequence(tmp_path):
    prefix = write_checkpoint(tmp_path, {"fruit": FRUITS})
    info = tws.VocabInfo(NEW, 3, 0, OLD)
    warmed = Ours().warm_start({"fruit": (3, 1)}, prefix, ".*", {"fruit": info})
    assert_equal(warmed["fruit"], [[2.0], [0.0], [0.5]])


# -- slots -----------------------------------------------------------------------------------------


def test_slots_follow_the_vocabulary_of_their_variable(engine, tmp_path):
    """In TensorFlow each slot needs a VocabInfo of its own; here `fruit/Momentum` has none."""
    momentum = [[5.0], [10.0], [15.0], [20.0]]
    prefix = engine.save(tmp_path, {"fruit": FRUITS, "fruit/Momentum": momentum})
    settings = (prefix, [".*"], {"fruit": vocab_info(engine, tmp_path)})
    if engine.is_tensorflow:
        with pytest.raises(ValueError, match="fruit/Momentum"):
            engine.warm_start({"fruit": (3, 1), "fruit/Momentum": (3, 1)}, *settings)
    else:
        model = model_of({"fruit": torch.zeros(3, 1)})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        tws.warm_start(model, tws.WarmStartSettings(*settings), optimizer=optimizer)
        assert_equal(model.fruit.detach(), [[2.0], [0.0], [0.5]])
        assert_equal(optimizer.state[model.fruit]["momentum_buffer"], [[20.0], [0.0], [5.0]])


def test_a_str_brings_the_slots_of_its_variables_if_the_optimizer_is_given(engine, tmp_path):
    """TensorFlow takes trainable variables only; `fruit/Momentum` is none."""
    momentum = [[5.0], [10.0], [15.0], [20.0]]
    prefix = engine.save(tmp_path, {"fruit": FRUITS, "fruit/Momentum": momentum})
    if engine.is_tensorflow:
        warmed = engine.warm_start({"fruit": (4, 1)}, prefix, "fruit")
        assert_equal(warmed["fruit"], FRUITS)
    else:
        model = model_of({"fruit": torch.zeros(4, 1)})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        settings = tws.WarmStartSettings(prefix, "fruit")
        tws.warm_start(model, settings, optimizer=optimizer)
        assert_equal(optimizer.state[model.fruit]["momentum_buffer"], momentum)


# -- paths -----------------------------------------------------------------------------------------


def test_a_path_of_bytes_is_refused(engine, prefix):
    """torch takes none either; `os.fsdecode` makes a str of it."""
    if engine.is_tensorflow:
        assert_equal(engine.warm_start({"fruit": (4, 1)}, prefix.encode())["fruit"], FRUITS)
    else:
        with pytest.raises(tws.SettingsError, match="not a bytes"):
            engine.warm_start({"fruit": (4, 1)}, prefix.encode())


def test_a_directory_that_holds_one_checkpoint_needs_no_state_file(engine, prefix, tmp_path):
    (tmp_path / "checkpoint").unlink()
    warm_start = partial(engine.warm_start, {"fruit": (4, 1)}, str(tmp_path))
    if engine.is_tensorflow:
        with pytest.raises(engine.failures):
            warm_start()
    else:
        assert_equal(warm_start()["fruit"], FRUITS)


def test_brackets_in_a_path_are_brackets(engine, tmp_path):
    folder = tmp_path / "we[i]rd"
    folder.mkdir()
    prefix = engine.save(folder, {"fruit": FRUITS})
    warm_start = partial(engine.warm_start, {"fruit": (4, 1)}, prefix)
    if engine.is_tensorflow:
        with pytest.raises(engine.failures):
            warm_start()
    else:
        assert_equal(warm_start()["fruit"], FRUITS)


# -- the functions beside warm_start ---------------------------------------------------------------


def test_a_matrix_asked_for_a_column_it_does_not_have_is_an_error(engine, tmp_path):
    prefix = engine.save(tmp_path, {"out": CLASSES})
    remap = partial(engine.remap_matrix, prefix, "out", [0, 1], [0, 2], [], 2, 2)
    if engine.is_tensorflow:
        assert_equal(remap()[:, :1], [[0.5], [1.0]])  # and anything at all beside it
    else:
        with pytest.raises(tws.SettingsError, match="column"):
            remap()


def test_a_scope_without_variables_is_an_error(engine, prefix):
    init = partial(engine.init_from_checkpoint, {"fruit": (4, 1)}, prefix, {"/": "no_such_scope/"})
    if engine.is_tensorflow:
        init()
    else:
        with pytest.raises(tws.PlanError):
            init()
