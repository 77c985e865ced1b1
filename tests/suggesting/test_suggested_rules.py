"""Rules files that hold suggested names, and suggestions for real files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from suggest_helpers import WIDTH, bert, confidences, keras_mlp, mlp, modules, write
from torch import nn

import torch_warmstart as tws
from torch_warmstart import NameRules, PlanError, SettingsError, WarmStartSettings
from torch_warmstart.settings.rules_file import Line, write_rules


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- rules files -----------------------------------------------------------------------------------


def test_a_rules_file_can_be_read_by_people():
    tws.save_rules("rules.toml", tws.suggest_names(mlp(), write(keras_mlp())))
    assert (
        Path("rules.toml").read_text()
        == """\
# How the model's names differ from the checkpoint's. Every rule that is not commented out must be
# used.

[names]  # a variable of the model: its tensor in the checkpoint, or a list
# low: several fit by name and shape, only their numbers decide; names agree in dense; or else
# dense_2/kernel
# "fc2.weight" = "dense_1/kernel"
# low: several fit by name and shape, only their numbers decide; names agree in dense; or else
# dense_2/bias
# "fc2.bias" = "dense_1/bias"
# low: several fit by name and shape, only their numbers decide; names agree in dense; or else
# dense_1/kernel
# "fc3.weight" = "dense_2/kernel"
# low: several fit by name and shape, only their numbers decide; names agree in dense; or else
# dense_1/bias
# "fc3.bias" = "dense_2/bias"

[scopes]  # the beginning of names: what they begin with in the checkpoint
# high: for 2 variables, such as fc1.weight
"fc1." = "dense/"
# medium: for 2 variables, such as classifier.weight
"classifier." = "dense_3/"
"""
    )
    rules = tws.load_rules("rules.toml")
    assert rules == NameRules({"fc1.": "dense/", "classifier.": "dense_3/"}, origin="rules.toml")


def test_rules_of_every_kind_are_read_back():
    rules = NameRules(
        {"a.b": "x/y", "c": ["k", "r"], "d.": "e/", "/": "old/"},
        [(r"f\.(\d+)\.(.+)", r"g_\1/\2"), ("it's", "quoted")],
        layouts={"a.b": "identity"},
    )
    tws.save_rules("rules.toml", rules)
    loaded = tws.load_rules("rules.toml")
    assert (loaded.names, loaded.patterns) == (rules.names, rules.patterns)
    assert loaded.layouts == rules.layouts
    tws.save_rules("rules.toml", {"a": "b"}, layouts={"a": "identity"})
    assert tws.load_rules("rules.toml").layouts == {"a": "identity"}
    tws.save_rules("rules.toml", [("a", "b")])
    assert tws.load_rules("rules.toml").patterns == (("a", "b"),)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda s: s + "x"),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda s: s + "y"),
    ),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_any_name_can_be_written(names, remark):
    lines = [Line("names", source, target, remark) for source, target in names.items()]
    write_rules("any.toml", lines)
    assert dict(tws.load_rules("any.toml").names) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[names", r"r.toml is no TOML file: "),
        (
            '[nmaes]\n"a" = "b"',
            r"r.toml has 'nmaes', which is no section of a rules file; they are",
        ),
        ('names = "a"', r"r.toml has 'names', which is no section"),
        ('[names]\n"a." = "b/"', r"r.toml: 'a.' is in \[names\]. A scope, with a dot or slash"),
        ('[scopes]\n"a" = "b/"', r"r.toml: 'a' is in \[scopes\]"),
        ('[scopes]\n"a." = "b"', r"r.toml: var_name_to_prev_var_name: in {'a.': 'b'} the first is"),
        ('[patterns]\n"(" = "b"', r"r.toml: var_name_to_prev_var_name: '\(' is not a regular"),
        ('[patterns]\n"a" = 3', r"r.toml: \[patterns\] 'a' is a str, not 3"),
        ('[names]\n"a" = 3', r"r.toml: var_name_to_prev_var_name maps variable names"),
        ('[layouts]\n"a" = ["b"]', r"r.toml: \[layouts\] 'a' is a str, not \['b'\]"),
    ],
)
def test_a_malformed_file_is_refused(text, message):
    Path("r.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        tws.load_rules("r.toml")


def test_no_file_and_a_function_are_refused():
    with pytest.raises(SettingsError, match="Rules file nowhere.toml cannot be read"):
        tws.load_rules("nowhere.toml")
    with pytest.raises(SettingsError, match="A function cannot be written into a rules file"):
        tws.save_rules("r.toml", lambda name: name)


def test_a_rule_that_matches_nothing_names_its_file():
    rules = {"fc1.": "dense/", "fc9.": "dense_1/", "head.weight": "x"}
    tws.save_rules("port.toml", rules)
    settings = WarmStartSettings(write(keras_mlp()), "fc1", None, tws.load_rules("port.toml"))
    with pytest.raises(PlanError) as caught:
        tws.plan_warm_start(mlp(), settings)
    text = str(caught.value)
    assert (
        "1. var_name_to_prev_var_name (port.toml): the model has no variable 'head.weight'." in text
    )
    assert (
        "2. var_name_to_prev_var_name (port.toml): {'fc9.': 'dense_1/'}: the model has no "
        "variables in 'fc9.'. Did you mean 'fc" in text
    )


def test_a_rule_whose_tensor_is_not_there_names_its_file():
    tws.save_rules("port.toml", {"fc1.weight": "dense/kernl"})
    settings = WarmStartSettings(
        write(keras_mlp()), "fc1.weight", None, tws.load_rules("port.toml")
    )
    with pytest.raises(PlanError) as caught:
        tws.plan_warm_start(mlp(), settings)
    assert (
        "1. fc1.weight: var_name_to_prev_var_name (port.toml) asks for 'dense/kernl', which c does "
        "not have. Did you mean 'dense/kernel'" in str(caught.value)
    )


# -- real files ------------------------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["weights.h5", "keras", "checkpoint"])
def test_a_keras_model_with_automatic_names(kind, folder):
    keras = pytest.importorskip("keras")
    import tensorflow as tf

    keras.backend.clear_session()
    layers = keras.layers
    theirs = keras.Sequential(
        [
            layers.Input((5,)),
            layers.Embedding(20, 8),
            layers.LSTM(6),
            layers.Dense(7),
            layers.Dense(3),
        ]
    )
    if kind == "checkpoint":
        path = tf.train.Checkpoint(model=theirs).save(str(folder / "c"))
    else:
        path = str(folder / f"m.{kind}")
        (theirs.save_weights if kind == "weights.h5" else theirs.save)(path)
    model = modules(
        words=nn.Embedding(20, 8), rnn=nn.LSTM(8, 6), hidden=nn.Linear(6, 7), tag=nn.Linear(7, 3)
    )
    suggestions = tws.suggest_names(model, path)
    assert set(confidences(suggestions).values()) == {"medium"}  # names share nothing
    tws.warm_start(model, WarmStartSettings(path, ".*", None, suggestions.as_rules("medium")))
    kernel = theirs.layers[-1].get_weights()[0]
    assert np.array_equal(model.tag.weight.detach().numpy(), kernel.T)


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", ["keras", "tf_keras"])
def test_the_layers_of_a_functional_model_in_another_one_are_one_scope(version, folder):
    """Nothing in such a checkpoint says that the inner model is called `enc`."""
    keras = pytest.importorskip(version)
    import tensorflow as tf

    inputs = keras.layers.Input((4,))
    inner = keras.Model(inputs, keras.layers.Dense(5, name="a")(inputs), name="enc")
    outer = keras.Model(inputs, keras.layers.Dense(6, name="b")(inner(inputs)))
    path = tf.train.Checkpoint(model=outer).save(str(folder / "c"))
    model = modules(enc=modules(a=nn.Linear(4, 5)), b=nn.Linear(5, 6))
    suggestions = tws.suggest_names(model, path)
    assert suggestions.as_rules().names == {"enc.": "/"}
    tws.warm_start(model, WarmStartSettings(path, ".*", None, suggestions.as_rules()))
    kernel = inner.get_layer("a").get_weights()[0]
    assert np.array_equal(model.enc.a.weight.detach().numpy(), kernel.T)


REAL = "TORCH_WARMSTART_CHECKPOINTS"


@pytest.mark.skipif(REAL not in os.environ, reason=f"{REAL} names no folder of real checkpoints")
def test_a_real_bert_is_suggested_in_full():
    path = str(Path(os.environ[REAL]) / "keras-bert-toy" / "bert_model.ckpt")
    shapes = dict(tws.list_variables(path))
    layers = len({key.split("/")[2] for key in shapes if key.startswith("bert/encoder/layer_")})
    width = shapes["bert/pooler/dense/kernel"][0]
    assert width == WIDTH
    model = bert(layers)
    suggestions = tws.suggest_names(model, WarmStartSettings(path, "bert.encoder.*attention"))
    for item in suggestions.items:
        expected = item.variable.replace("layer.", "layer_").replace(".", "/").rpartition("/")[0]
        assert item.names[0].startswith(expected), item
        assert item.confidence == "high"


def test_what_is_another_variable_s_is_not_found_by_itself():
    model = modules(fc=nn.Linear(2, 2), tower=modules(fc=nn.Linear(2, 2)))
    checkpoint = write({"tower/fc/kernel": (2, 2), "tower/fc/bias": (2,)})
    suggestions = tws.suggest_names(model, checkpoint)
    assert set(confidences(suggestions)) == {"fc.weight", "fc.bias"}
    assert suggestions.num_found == 2


def test_a_module_with_a_vocabulary_is_selected_by_none():
    info = tws.VocabInfo(["a"], -1, 0, ["a", "b"])
    settings = WarmStartSettings(write({"old/kernel": (3, 2)}), None, {"fc": info})
    suggestions = tws.suggest_names(modules(fc=nn.Linear(3, 1, bias=False)), settings)
    assert set(confidences(suggestions)) == {"fc.weight"}
