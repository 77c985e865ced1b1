"""Settings have TensorFlow's fields, order and defaults, and are checked when they are made."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch

from torch_warmstart import SettingsError, VocabInfo, WarmStartSettings


def test_positional_fields_are_tensorflows():
    info = VocabInfo("new.txt", 5, 1, "old.txt", 4, torch.nn.init.ones_, 1)
    assert (info.new_vocab, info.new_vocab_size, info.num_oov_buckets) == ("new.txt", 5, 1)
    assert (info.old_vocab, info.old_vocab_size, info.axis) == ("old.txt", 4, 1)
    settings = WarmStartSettings("ckpt", ["a"], {"a": info}, {"a": "b"})
    assert settings.ckpt_to_initialize_from == "ckpt"
    assert settings.vars_to_warm_start == ["a"]
    assert settings.var_name_to_vocab_info == {"a": info}
    assert settings.var_name_to_prev_var_name == {"a": "b"}


def test_defaults_are_tensorflows():
    info = VocabInfo("new.txt", 5, 0, "old.txt")
    assert (info.old_vocab_size, info.backup_initializer, info.axis) == (-1, None, 0)
    assert WarmStartSettings("ckpt").vars_to_warm_start == ".*"


def test_additions_are_keyword_only():
    with pytest.raises(TypeError):
        VocabInfo("new.txt", 5, 0, "old.txt", -1, None, 0, 3)
    with pytest.raises(TypeError):
        WarmStartSettings("ckpt", ".*", None, None, {"a": "identity"})


def test_settings_are_frozen_and_keep_a_copy_of_the_dicts():
    renames = {"a": "b"}
    settings = WarmStartSettings("ckpt", var_name_to_prev_var_name=renames)
    renames["c"] = "d"
    assert settings.var_name_to_prev_var_name == {"a": "b"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.verify = False


def test_settings_keep_a_copy_of_the_patterns_that_they_have_checked():
    patterns = ["a"]
    settings = WarmStartSettings("c", patterns)
    patterns[:] = ["", "("]
    assert settings.vars_to_warm_start == ["a"]


def test_settings_survive_pickling_copying_and_replacing():
    settings = WarmStartSettings("ckpt", None, {"a": VocabInfo(["x"], 1, 0, ["x"])})
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert copy.deepcopy(settings) == settings
    assert dataclasses.replace(settings, verify=False).verify is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "`ckpt_to_initialize_from` must be set"),
        (("c", ""), "an empty pattern. Use '.*'"),
        (("c", [""]), "an empty pattern. Use '.*'"),
        (("c", ["a", ""]), "an empty pattern. Use '.*'"),
        (("c", []), "an empty list, which selects nothing"),
        (("c", ("a",)), "a str, a list or None, not a tuple"),
        (("c", 3), "not a int"),
        (("c", "("), r"'\(' is not a regular expression"),
        (("c", ["a", "*"]), r"'\*' is not a regular expression: nothing to repeat"),
        (("c", ["a", 3]), "all str .* or all tensors of the model; found int, str"),
        (("c", ".*", {"a": "b"}), "var_name_to_vocab_info: 'a' is for a VocabInfo"),
        (("c", ".*", [1]), "var_name_to_vocab_info must be a mapping, not a list"),
        (("c", ".*", None, {"a": ""}), "var_name_to_prev_var_name maps variable names"),
        (("c", ".*", None, {1: "a"}), "var_name_to_prev_var_name maps variable names"),
    ],
)
def test_impossible_settings_are_refused_when_made(arguments, message):
    with pytest.raises(SettingsError, match=message):
        WarmStartSettings(*arguments)


def test_an_unknown_policy_is_refused():
    with pytest.raises(SettingsError, match="on_missing is 'error' or 'keep', not 'skip'"):
        WarmStartSettings("c", on_missing="skip")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"new_vocab": None}, "new_vocab is a path or URL, or a sequence"),
        ({"new_vocab": b"v.txt"}, "not a bytes"),
        ({"old_vocab": ""}, "old_vocab is an empty path"),
        ({"new_vocab_size": 0}, "new_vocab_size is 0. Use -1"),
        ({"new_vocab_size": -2}, "it must be at least -1"),
        ({"new_vocab_size": 2.0}, "must be an int, not 2.0"),
        ({"old_vocab_size": None}, "must be an int, not None"),
        ({"old_vocab_size": 0}, "old_vocab_size is 0"),
        ({"num_oov_buckets": -1}, "num_oov_buckets is -1; it must be at least 0"),
        ({"num_oov_buckets": True}, "must be an int, not True"),
        ({"axis": "0"}, "axis must be an int"),
        ({"backup_initializer": 3}, "None .zeros., 'keep', one of tws.init"),
        ({"backup_initializer": "zeros"}, "None .zeros., 'keep', one of tws.init"),
        (
            {"num_oov_buckets": 1, "old_num_oov_buckets": 2},
            "old_num_oov_buckets=2 and num_oov_buckets=1 differ",
        ),
        ({"generator": torch.Generator()}, "of no use without a backup_initializer"),
        (
            {"generator": torch.Generator(), "backup_initializer": torch.nn.init.ones_},
            "takes no argument 'generator'",
        ),
    ],
)
def test_an_impossible_vocab_info_is_refused_when_made(changes, message):
    fields = {"new_vocab": "n", "new_vocab_size": 1, "num_oov_buckets": 0, "old_vocab": "o"}
    with pytest.raises(SettingsError, match=message):
        VocabInfo(**{**fields, **changes})
