"""Suggested names: what decides, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cpu_time import cpu_seconds_below
from suggest_helpers import (
    POSITIONS,
    WIDTH,
    WORDS,
    bert,
    confidences,
    dense,
    keras_mlp,
    mlp,
    modules,
    write,
)
from torch import nn

import torch_warmstart as tws
from torch_warmstart import NameRules, PlanError, SettingsError, WarmStartSettings


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def proposed(suggestions):
    return {item.variable: "+".join(item.names) for item in suggestions.items}


# -- BERT ------------------------------------------------------------------------------------------


def _norm(path):
    return {f"{path}/gamma": (WIDTH,), f"{path}/beta": (WIDTH,)}


def bert_shapes(layers, first=0):
    """The names of google-research/bert, with its optimizer's slots."""
    shapes = {
        "bert/embeddings/word_embeddings": (WORDS, WIDTH),
        "bert/embeddings/position_embeddings": (POSITIONS, WIDTH),
        "bert/embeddings/token_type_embeddings": (2, WIDTH),
        **_norm("bert/embeddings/LayerNorm"),
        **dense("bert/pooler/dense", WIDTH, WIDTH),
        **dense("cls/predictions/transform/dense", WIDTH, WIDTH),
        **_norm("cls/predictions/transform/LayerNorm"),
        "cls/predictions/output_bias": (WORDS,),
        "cls/seq_relationship/output_weights": (2, WIDTH),
        "cls/seq_relationship/output_bias": (2,),
    }
    for k in range(first, first + layers):
        layer = f"bert/encoder/layer_{k}"
        for name in ("query", "key", "value"):
            shapes |= dense(f"{layer}/attention/self/{name}", WIDTH, WIDTH)
        shapes |= dense(f"{layer}/attention/output/dense", WIDTH, WIDTH)
        shapes |= _norm(f"{layer}/attention/output/LayerNorm")
        shapes |= dense(f"{layer}/intermediate/dense", WIDTH, 2 * WIDTH)
        shapes |= dense(f"{layer}/output/dense", 2 * WIDTH, WIDTH)
        shapes |= _norm(f"{layer}/output/LayerNorm")
    slots = {f"{key}/{slot}": s for key, s in shapes.items() for slot in ("adam_m", "adam_v")}
    return {**shapes, **slots, "global_step": ()}


def test_berts_layers_are_one_pattern():
    suggestions = tws.suggest_names(bert(12), write(bert_shapes(12)))
    (rule,) = suggestions.rules
    assert str(rule) == (
        r"('bert\\.encoder\\.layer\\.(\\d+)\\.(.+)', 'bert/encoder/layer_\\1/\\2')"
    )
    assert rule.confidence == "high"
    assert len(rule.variables) == 12 * 16
    assert suggestions.unused == ()
    assert proposed(suggestions)["cls.predictions.bias"] == "cls/predictions/output_bias"
    assert {i.layout for i in suggestions.items} == {None, "identity"}
    assert suggestions.layouts("medium") == {"cls.seq_relationship.weight": "identity"}


def test_what_is_suggested_for_bert_fills_it():
    checkpoint = write(bert_shapes(3))
    suggestions = tws.suggest_names(bert(3), checkpoint)
    rules = suggestions.as_rules("medium")
    model = bert(3)
    settings = WarmStartSettings(checkpoint, ".*", None, rules, var_name_to_layout=rules.layouts)
    tws.warm_start(model, settings)
    for name, key in (
        ("bert.encoder.layer.2.attention.self.value.weight", "layer_2/attention/self/value/kernel"),
        ("bert.encoder.layer.1.output.dense.weight", "layer_1/output/dense/kernel"),
    ):
        expected = tws.load_variable(checkpoint, f"bert/encoder/{key}").T
        assert torch.equal(model.get_parameter(name), expected)
    weights = tws.load_variable(checkpoint, "cls/seq_relationship/output_weights")
    assert torch.equal(model.cls.seq_relationship.weight, weights)


def test_layers_that_are_counted_from_one_are_taken_by_their_rank():
    suggestions = tws.suggest_names(bert(3), write(bert_shapes(3, first=1)))
    names = proposed(suggestions)
    for k in range(3):
        theirs = f"bert/encoder/layer_{k + 1}/attention/self/key/kernel"
        assert names[f"bert.encoder.layer.{k}.attention.self.key.weight"] == theirs
    sure = confidences(suggestions)["bert.encoder.layer.0.attention.self.key.weight"]
    assert sure == "medium"
    assert suggestions.as_rules("medium").names["bert.encoder.layer.2."] == "bert/encoder/layer_3/"


def test_a_model_of_another_name_and_fewer_layers():
    suggestions = tws.suggest_names(bert(2, name="backbone"), write(bert_shapes(3)))
    names = proposed(suggestions)
    assert names["backbone.encoder.layer.1.output.dense.bias"].endswith("layer_1/output/dense/bias")
    assert names["backbone.pooler.dense.weight"] == "bert/pooler/dense/kernel"
    assert not any("layer_2" in name for name in names.values())
    assert len(suggestions.unused) == 16


def test_thousands_of_names_take_seconds():
    model, checkpoint = bert(125), write(bert_shapes(125))
    with cpu_seconds_below(20):
        suggestions = tws.suggest_names(model, checkpoint)
    assert len(suggestions.items) > 2_000


# -- what decides ----------------------------------------------------------------------------------


def test_suggestions_are_a_table_that_says_why():
    assert (
        str(tws.suggest_names(mlp(), write(keras_mlp())))
        == """\
Names for c

variable           from            confidence  why                                                                             or else
fc1.weight         dense/kernel    high        only this fits by name and shape; names agree in dense
fc1.bias           dense/bias      high        only this fits by name and shape; names agree in dense
fc2.weight         dense_1/kernel  low         several fit by name and shape, only their numbers decide; names agree in dense  dense_2/kernel
fc2.bias           dense_1/bias    low         several fit by name and shape, only their numbers decide; names agree in dense  dense_2/bias
fc3.weight         dense_2/kernel  low         several fit by name and shape, only their numbers decide; names agree in dense  dense_1/kernel
fc3.bias           dense_2/bias    low         several fit by name and shape, only their numbers decide; names agree in dense  dense_1/bias
classifier.weight  dense_3/kernel  medium      only this fits by name and shape
classifier.bias    dense_3/bias    medium      only this fits by name and shape

8 suggestions by confidence: 2 high, 2 medium, 4 low; 0 found by themselves; 0 tensors unused
As rules:
  {'fc1.': 'dense/'}  high, for 2 variables
  {'fc2.': 'dense_1/'}  low, for 2 variables
  {'fc3.': 'dense_2/'}  low, for 2 variables
  {'classifier.': 'dense_3/'}  medium, for 2 variables"""  # noqa: E501
    )


def test_the_user_chooses_how_sure_rules_must_be():
    suggestions = tws.suggest_names(mlp(), write(keras_mlp()))
    assert suggestions.as_rules() == NameRules({"fc1.": "dense/"})
    both = NameRules({"fc1.": "dense/", "classifier.": "dense_3/"})
    assert suggestions.as_rules("medium") == both
    assert len(suggestions.as_rules("low")) == 4
    with pytest.raises(SettingsError, match="'high', 'medium' or 'low', not 'none'"):
        suggestions.as_rules("none")


def test_layers_that_only_their_order_tells_apart_are_low():
    model = nn.Sequential(*[nn.Linear(5, 5) for _ in range(12)])
    shapes = {}
    for k in range(12):
        shapes |= dense(f"dense_{k}" if k else "dense", 5, 5)
    suggestions = tws.suggest_names(model, write(shapes))
    assert set(confidences(suggestions).values()) == {"low"}
    assert proposed(suggestions)["11.weight"] == "dense_11/kernel"
    assert all(item.alternatives for item in suggestions.items)
    assert suggestions.as_rules("medium") == NameRules()


def test_a_kernel_goes_where_its_bias_goes():
    """Each kernel fits two layers; with its bias it fits one."""
    model = modules(a=nn.Linear(5, 7), b=nn.Linear(5, 7, bias=False))
    shapes = {**dense("x", 5, 7), "y/kernel": (5, 7)}
    names = proposed(tws.suggest_names(model, write(shapes)))
    assert names == {"a.weight": "x/kernel", "a.bias": "x/bias", "b.weight": "y/kernel"}


def test_a_recurrent_layer_is_found_by_its_cell():
    model = modules(rnn=nn.LSTM(3, 5))
    named = {"kernel": (3, 20), "recurrent_kernel": (5, 20), "bias": (20,)}
    checkpoint = write({f"lstm_1/lstm_cell_7/{name}": s for name, s in named.items()})
    suggestions = tws.suggest_names(model, checkpoint)
    assert suggestions.as_rules("low").names == {"rnn.": "lstm_1/"}
    settings = WarmStartSettings(checkpoint, ".*", None, suggestions.as_rules("low"))
    assert tws.warm_start(model, settings).count("converted") == 4


def test_tensors_with_names_of_ones_own_fit_by_their_shapes():
    model = modules(first=nn.Linear(5, 7), second=nn.Linear(7, 2))
    checkpoint = write({"L1/u": (5, 7), "L1/z": (7,), "L2/u": (7, 2), "L2/z": (2,)})
    suggestions = tws.suggest_names(model, checkpoint)
    assert proposed(suggestions)["second.weight"] == "L2/u"
    assert {i.confidence for i in suggestions.items} == {"medium"}


def test_what_nothing_fits_is_shown():
    suggestions = tws.suggest_names(mlp(), write({"dense/kernel": (9, 9)}))
    assert set(confidences(suggestions).values()) == {"none"}
    assert suggestions.unused == ("dense/kernel",)
    assert "nothing of its shape is left" in str(suggestions)
    assert suggestions.as_rules("low") == NameRules()


def test_a_model_that_finds_everything_needs_nothing():
    suggestions = tws.suggest_names(mlp(), mlp())
    assert str(suggestions) == (
        "Names for <Module>: nothing to suggest; 8 variables are found by themselves."
    )


def test_only_what_is_selected_and_not_renamed_gets_a_suggestion():
    checkpoint = write(keras_mlp())
    settings = WarmStartSettings(checkpoint, "fc", None, {"fc2.": "dense_2/"})
    suggestions = tws.suggest_names(mlp(), settings)
    assert set(proposed(suggestions)) == {
        f"fc{k}.{leaf}" for k in (1, 3) for leaf in ("weight", "bias")
    }
    with pytest.raises(PlanError, match="Names cannot be suggested for these settings:"):
        tws.suggest_names(mlp(), WarmStartSettings(checkpoint, "nothing"))
    with pytest.raises(SettingsError, match="must be a torch.nn.Module, not a dict"):
        tws.suggest_names({}, checkpoint)


def test_buffers_come_along_where_they_are_selected():
    model = modules(norm_a=nn.BatchNorm1d(3))
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    checkpoint = write({f"bn/{name}": (3,) for name in names})
    assert len(tws.suggest_names(model, checkpoint).items) == 2
    suggestions = tws.suggest_names(model, WarmStartSettings(checkpoint, [".*"]))
    assert proposed(suggestions)["norm_a.running_var"] == "bn/moving_variance"


def test_names_of_a_torch_state_keep_their_dots():
    old = modules(model=bert(2))
    suggestions = tws.suggest_names(bert(2), old)
    assert [str(rule) for rule in suggestions.rules] == ["{'/': 'model/'}"]
    assert proposed(suggestions)["cls.predictions.bias"] == "model.cls.predictions.bias"
    tws.warm_start(bert(2), WarmStartSettings(old, ".*", None, suggestions.as_rules()))


# -- layers that are several, or parts of one ------------------------------------------------------


def _attention(path, heads=2, size=4):
    wide = heads * size
    shapes = {
        f"{path}/attention_output/kernel": (heads, size, wide),
        f"{path}/attention_output/bias": (wide,),
    }
    for name in ("query", "key", "value"):
        shapes |= {
            f"{path}/{name}/kernel": (wide, heads, size),
            f"{path}/{name}/bias": (heads, size),
        }
    return shapes


def _as_low(suggestions, model, checkpoint):
    """The model's tensors, filled by all that is suggested."""
    rules = suggestions.as_rules("low")
    tws.warm_start(model, WarmStartSettings(checkpoint, [".*"], None, rules))
    return model.state_dict()


def test_an_attention_and_its_output_come_from_the_same_layer():
    """Keras calls the first layer of a kind without a number, and the second with 1."""
    model = modules(attns=nn.ModuleList(nn.MultiheadAttention(8, 2) for _ in range(2)))
    names = ("multi_head_attention", "multi_head_attention_1")
    checkpoint = write({k: s for name in names for k, s in _attention(name).items()})
    suggestions = tws.suggest_names(model, checkpoint)
    for k, theirs in enumerate(names):
        for item in suggestions.items:
            if item.variable.startswith(f"attns.{k}."):
                assert all(name.startswith(f"{theirs}/") for name in item.names), item
    assert set(confidences(suggestions).values()) == {"high"}
    assert suggestions.as_rules().names == {
        "attns.0.": "multi_head_attention/",
        "attns.1.": "multi_head_attention_1/",
    }
    filled = _as_low(suggestions, model, checkpoint)
    kernel = tws.load_variable(checkpoint, "multi_head_attention_1/attention_output/kernel")
    assert torch.equal(filled["attns.1.out_proj.weight"], kernel.flatten(0, 1).T)


def test_the_halves_of_a_separable_convolution_come_from_the_same_layer():
    def halves():
        return modules(
            depthwise=nn.Conv1d(4, 4, 3, groups=4, bias=False), pointwise=nn.Conv1d(4, 4, 1)
        )

    shapes = {"depthwise_kernel": (3, 4, 1), "pointwise_kernel": (1, 4, 4), "bias": (4,)}
    names = ("separable_conv1d", "separable_conv1d_1")
    checkpoint = write({f"{name}/{k}": shape for name in names for k, shape in shapes.items()})
    suggestions = tws.suggest_names(modules(a=halves(), b=halves()), checkpoint)
    assert suggestions.as_rules("low").names == {
        "a.": "separable_conv1d/",
        "b.": "separable_conv1d_1/",
    }


@pytest.mark.parametrize("with_last_norm", [False, True])
def test_layers_that_are_counted_through_come_in_their_order(with_last_norm):
    """Keras's fourth LayerNormalization is the second one of the second block."""
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    last = nn.LayerNorm(8) if with_last_norm else None
    model = nn.TransformerEncoder(layer, 3, norm=last, enable_nested_tensor=False)
    shapes = {}
    for k in range(3):
        shapes |= _attention(f"multi_head_attention_{k}" if k else "multi_head_attention")
    for k in range(6):
        shapes |= dense(f"dense_{k}" if k else "dense", *((16, 8) if k % 2 else (8, 16)))
    for k in range(7 if with_last_norm else 6):
        name = f"layer_normalization_{k}" if k else "layer_normalization"
        shapes |= {f"{name}/{leaf}": (8,) for leaf in ("gamma", "beta")}
    checkpoint = write(shapes)
    suggestions = tws.suggest_names(model, checkpoint)
    names = proposed(suggestions)
    for k in range(3):
        norms = [names[f"layers.{k}.norm{n}.weight"] for n in (1, 2)]
        first = f"layer_normalization_{2 * k}" if k else "layer_normalization"
        assert norms == [f"{first}/gamma", f"layer_normalization_{2 * k + 1}/gamma"]
        assert names[f"layers.{k}.linear2.weight"] == f"dense_{2 * k + 1}/kernel"
    if with_last_norm:
        assert names["norm.weight"] == "layer_normalization_6/gamma"
    item = next(i for i in suggestions.items if i.variable == "layers.1.norm2.bias")
    assert item.confidence == "low"
    assert item.reason.startswith("several fit by name and shape, only their order decides")
    assert item.alternatives
    _as_low(suggestions, model, checkpoint)


def _lstm_shapes(name, inputs, units):
    cell = {"kernel": (inputs, 4 * units), "recurrent_kernel": (units, 4 * units)}
    return {f"{name}/lstm_cell/{k}": s for k, s in {**cell, "bias": (4 * units,)}.items()}


def test_recurrent_layers_one_behind_the_other_are_a_stack():
    model = modules(rnn=nn.LSTM(3, 5, num_layers=2))
    checkpoint = write({**_lstm_shapes("lstm_1", 5, 5), **_lstm_shapes("lstm", 3, 5)})
    suggestions = tws.suggest_names(model, checkpoint)
    assert {item.reason for item in suggestions.items} == {
        "only this fits by name and shape; a layer of the checkpoint for each of the module's"
    }
    assert set(confidences(suggestions).values()) == {"medium"}
    leaves = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assert suggestions.as_rules("medium").names == {
        f"rnn.{leaf}_l{k}": [
            f"{name}/lstm_cell/{kind}" for kind in ("kernel", "recurrent_kernel", "bias")
        ]
        for k, name in enumerate(("lstm", "lstm_1"))
        for leaf in leaves
    }


def test_recurrent_layers_of_the_same_sizes_are_a_stack_in_their_order():
    checkpoint = write({**_lstm_shapes("lstm_1", 5, 5), **_lstm_shapes("lstm", 5, 5)})
    suggestions = tws.suggest_names(modules(rnn=nn.LSTM(5, 5, num_layers=2)), checkpoint)
    item = next(i for i in suggestions.items if i.variable == "rnn.weight_hh_l1")
    assert item.names[0] == "lstm_1/lstm_cell/kernel"
    assert item.confidence == "low"
    assert item.reason == (
        "several fit by name and shape, only their order decides; names share nothing; a layer of "
        "the checkpoint for each of the module's"
    )
    assert [names[0] for names in item.alternatives] == ["lstm/lstm_cell/kernel"]


def test_a_stack_without_enough_layers_is_told_the_truth():
    checkpoint = write(_lstm_shapes("lstm", 3, 5))
    suggestions = tws.suggest_names(modules(rnn=nn.LSTM(3, 5, num_layers=2)), checkpoint)
    assert {(i.confidence, i.reason) for i in suggestions.items} == {
        ("none", "no layer is left whose tensors make it")
    }


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("version", "kind", "both_ways"),
    [("keras", "LSTM", True), ("keras", "GRU", False), ("tf_keras", "SimpleRNN", False)],
)
def test_what_is_suggested_for_a_stack_computes_the_same(version, kind, both_ways, folder):
    keras = pytest.importorskip(version)
    keras.backend.clear_session()

    def make():
        layer = getattr(keras.layers, kind)(4, return_sequences=True)
        return keras.layers.Bidirectional(layer) if both_ways else layer

    theirs = keras.Sequential([keras.layers.Input((5, 3)), make(), make()])
    rng = np.random.default_rng(1)
    theirs.set_weights([rng.normal(size=w.shape) for w in theirs.get_weights()])
    theirs.save(str(folder / "m.keras"))
    module = {"LSTM": nn.LSTM, "GRU": nn.GRU, "SimpleRNN": nn.RNN}[kind]
    model = modules(rnn=module(3, 4, 2, batch_first=True, bidirectional=both_ways))
    suggestions = tws.suggest_names(model, "m.keras")
    _as_low(suggestions, model, "m.keras")
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    assert tws.verify_port(model.rnn, x, (np.asarray(theirs(x)),))


def test_what_only_fits_is_not_sure_where_names_share_nothing():
    checkpoint = write({**dense("enc", 8, 8), **dense("log_var", 8, 6)})
    model = modules(enc=nn.Linear(8, 8), mu=nn.Linear(8, 6))
    suggestions = tws.suggest_names(model, checkpoint)
    assert confidences(suggestions) == {"mu.weight": "low", "mu.bias": "low"}  # which it is not
    many = nn.ModuleList(nn.Linear(8, 6 + k) for k in range(3))
    checkpoint = write({k: s for n in range(3) for k, s in dense(f"x_{n}", 8, 6 + n).items()})
    assert set(confidences(tws.suggest_names(modules(mu=many), checkpoint)).values()) == {"medium"}


class OwnNorm(nn.Module):
    """A norm of a user's, such as MobileBERT's NoNorm: its bias comes first."""

    def __init__(self, with_statistics=False):
        super().__init__()
        self.bias, self.weight = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
        if with_statistics:
            self.register_buffer("running_mean", torch.zeros(4))
            self.register_buffer("running_var", torch.zeros(4))


@pytest.mark.parametrize("with_statistics", [False, True])
def test_a_norm_of_a_users_own_is_found_as_one(with_statistics):
    leaves = {"weight": "gamma", "bias": "beta"}
    if with_statistics:
        leaves |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
    layers = {k: modules(out=modules(LayerNorm=OwnNorm(with_statistics))) for k in range(12)}
    model = modules(layer=nn.ModuleList(layers.values()), LayerNorm=OwnNorm(with_statistics))
    theirs = {f"layer.{k}.out.LayerNorm": f"b/layer_{k}/out/FakeLayerNorm" for k in layers}
    theirs["LayerNorm"] = "b/embeddings/FakeLayerNorm"
    shapes = {f"{path}/{leaf}": (4,) for path in theirs.values() for leaf in leaves.values()}
    suggestions = tws.suggest_names(model, tws.WarmStartSettings(write(shapes), [".*"]))
    found = {item.variable: item.names for item in suggestions.items}
    assert found == {
        f"{ours}.{leaf}": (f"{path}/{name}",)
        for ours, path in theirs.items()
        for leaf, name in leaves.items()
    }
    _as_low(suggestions, model, "c")
