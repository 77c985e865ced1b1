"""A BERT of TensorFlow in transformers, whose own reader of TensorFlow's checkpoints is gone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models as real
import tf_bert
import torch
from transformers import BertConfig, BertForPreTraining, BertModel

import torch_warmstart as tws

pytestmark = pytest.mark.tensorflow

RULES = Path(__file__).parent / "rules"
SIZES = tf_bert.Sizes()
# Its GELU is the one by tanh, as in google-research/bert since 2019; "gelu" is the one by erf.
TANH_GELU, ERF_GELU = "gelu_new", "gelu"
LOGITS = ("prediction_logits", "seq_relationship_logits")
HIDDEN = ("last_hidden_state", "pooler_output")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tf_bert.Record:
    return tf_bert.save_random(tmp_path_factory.mktemp("bert"), SIZES)


def config(sizes: tf_bert.Sizes = SIZES, hidden_act: str = TANH_GELU) -> BertConfig:
    return BertConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.inner,
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.types,
        hidden_act=hidden_act,
        layer_norm_eps=tf_bert.EPSILON,
        attn_implementation="eager",
    )


def settings(path: str, file: str, **more: Any) -> tws.WarmStartSettings:
    rules = tws.load_rules(RULES / file)
    layouts = rules.layouts
    return tws.WarmStartSettings(
        path, var_name_to_prev_var_name=rules, var_name_to_layout=layouts, **more
    )


def pretraining(path: str, *, dtype: str = "float32", **options: Any) -> BertForPreTraining:
    model = BertForPreTraining(config(**options)).to(getattr(torch, dtype))
    tws.warm_start(model, settings(path, "bert_for_pretraining.toml"))
    return model


def arguments(inputs: tf_bert.Inputs) -> dict[str, np.ndarray]:
    return {"input_ids": inputs.ids, "token_type_ids": inputs.types, "attention_mask": inputs.mask}


def check(model: torch.nn.Module, record: tf_bert.Record, dtype: str = "float32") -> tws.PortCheck:
    """Compares every output and every layer that the model has."""
    inside = hasattr(model, "bert")
    outputs = {name: record.outputs[dtype][name] for name in (LOGITS if inside else HIDDEN)}
    layers = {}
    for name, seen in record.layers[dtype].items():
        if not name.startswith("cls."):
            layers[f"bert.{name}" if inside else name] = seen
        elif inside:
            layers[name] = seen
    return tws.verify_port(model, arguments(record.inputs), outputs, layers=layers)


@pytest.mark.parametrize("dtype", ["float32", "float64"])  # errors below 1e-5, and below 1e-10
def test_the_encoder(record: tf_bert.Record, dtype: str) -> None:
    model = BertModel(config()).to(getattr(torch, dtype))
    report = tws.warm_start(model, settings(record.path, "bert_model.toml"))
    assert not report.missing_keys
    checked = check(model, record, dtype)
    assert checked, f"\n{checked}"
    assert checked.first_departure is None
    assert len(checked.layers) == 3 + 10 * SIZES.layers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_pretraining_model_with_its_tied_decoder(record: tf_bert.Record, dtype: str) -> None:
    model = pretraining(record.path, dtype=dtype)
    checked = check(model, record, dtype)
    assert checked, f"\n{checked}"
    decoder = model.cls.predictions.decoder
    assert decoder.weight is model.bert.embeddings.word_embeddings.weight


def test_everything_is_taken_but_the_optimizers_slots(record: tf_bert.Record) -> None:
    model = BertForPreTraining(config())
    missing, unused = tws.warm_start(model, settings(record.path, "bert_for_pretraining.toml"))
    assert not missing
    slots = [key for key in unused if key.endswith(("/adam_m", "/adam_v"))]
    assert len(slots) == 2 * len(tf_bert.variables(SIZES))
    assert set(unused) - set(slots) == {"global_step"}


def test_a_kernel_that_was_not_transposed_is_named(record: tf_bert.Record) -> None:
    model = pretraining(record.path)
    weight = model.bert.encoder.layer[1].attention.self.key.weight  # square: it fits both ways
    with torch.no_grad():
        weight.copy_(weight.T.clone())
    assert check(model, record).first_departure == "bert.encoder.layer.1.attention.self.key"


def test_the_other_gelu_is_named(record: tf_bert.Record) -> None:
    model = pretraining(record.path, hidden_act=ERF_GELU)
    checked = check(model, record)
    assert checked.first_departure == "bert.encoder.layer.0.intermediate"
    assert "after 'bert.encoder.layer.0.intermediate.dense' still agreed" in str(checked)


def test_a_head_in_torchs_layout_is_refused_before_anything_is_changed(
    record: tf_bert.Record,
) -> None:
    model = BertForPreTraining(config())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rules = tws.load_rules(RULES / "bert_for_pretraining.toml")
    rules = dataclasses.replace(rules, layouts={})  # which would come along
    with pytest.raises(tws.PlanError, match=r"cls\.seq_relationship\.weight has shape \[2, 32\]"):
        tws.warm_start(model, tws.WarmStartSettings(record.path, var_name_to_prev_var_name=rules))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_with_another_vocabulary_the_tokens_that_stayed_are_scored_as_before(
    record: tf_bert.Record,
) -> None:
    old = [f"token{number}" for number in range(SIZES.vocab)]
    new = [*reversed(old[5:]), "new1", "new2"]  # five tokens are gone, two have come
    info = tws.VocabInfo(new, len(new), 0, old)
    sizes = dataclasses.replace(SIZES, vocab=len(new))
    model = BertForPreTraining(config(sizes))
    table = "bert.embeddings.word_embeddings.weight"
    vocabularies = {table: info, "cls.predictions.bias": info}
    report = tws.warm_start(
        model,
        settings(record.path, "bert_for_pretraining.toml", var_name_to_vocab_info=vocabularies),
    )
    assert report[table].rows is not None
    assert report[table].rows.copied == len(old) - 5

    ids = np.maximum(record.inputs.ids, 5)  # only tokens that both have
    inputs = dataclasses.replace(record.inputs, ids=ids)
    expected, relation = run_pretraining(record.path, inputs)
    translated = np.array([new.index(old[token]) for token in ids.flat]).reshape(ids.shape)
    arguments_now = arguments(dataclasses.replace(inputs, ids=translated))
    with torch.no_grad():
        outputs = model.eval()(**{name: torch.tensor(a) for name, a in arguments_now.items()})
    stayed = [new.index(token) for token in old[5:]]
    scores = outputs.prediction_logits[..., stayed]
    torch.testing.assert_close(scores, torch.tensor(expected[..., 5:]), rtol=0, atol=2e-5)
    torch.testing.assert_close(
        outputs.seq_relationship_logits, torch.tensor(relation), rtol=0, atol=2e-5
    )


def run_pretraining(path: str, inputs: tf_bert.Inputs) -> tuple[np.ndarray, np.ndarray]:
    """What the saved BERT says of other inputs."""
    import tensorflow as tf

    weights = tf.train.load_checkpoint(path).get_tensor
    seen = tf_bert.encode(weights, inputs, SIZES, tanh_gelu=True)
    tokens, relation = tf_bert.predict(weights, seen, SIZES, tanh_gelu=True)
    return tokens.numpy(), relation.numpy()


# -- checkpoints that others have trained ----------------------------------------------------------

TOYS = {
    "keras-bert-toy": ("bert_config.json", "bert_model.ckpt"),
    "keras-bert-toy-old": ("config.json", "model.ckpt-20"),
}


@real.needs_checkpoints
@pytest.mark.parametrize("folder", TOYS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_real_one(folder: str, dtype: str) -> None:
    config_file, prefix = TOYS[folder]
    about = json.loads((real.FOLDER / folder / config_file).read_text())
    sizes = tf_bert.Sizes(
        vocab=about["vocab_size"],
        hidden=about["hidden_size"],
        layers=about["num_hidden_layers"],
        heads=about["num_attention_heads"],
        inner=about["intermediate_size"],
        positions=about["max_position_embeddings"],
        types=about["type_vocab_size"],
    )
    inputs = tf_bert.random_inputs(sizes, np.random.default_rng(0))
    weights = real.tf_weights(f"{folder}/{prefix}", dtype)
    seen = tf_bert.encode(weights, inputs, sizes, tanh_gelu=False)
    logits = tf_bert.predict(weights, seen, sizes, tanh_gelu=False)
    path = str(real.FOLDER / folder / prefix)
    model = pretraining(path, dtype=dtype, sizes=sizes, hidden_act=ERF_GELU)
    real.assert_agrees(
        model,
        arguments(inputs),
        {name: tensor.numpy() for name, tensor in zip(LOGITS, logits, strict=True)},
        layers={n if n.startswith("cls.") else f"bert.{n}": seen[n].numpy() for n in seen},
    )
