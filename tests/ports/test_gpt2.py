"""A small GPT-2 that others have saved in openai/gpt-2's naming, in transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import real_models as real
import tf_gpt2
import torch
from transformers import GPT2Config, GPT2Model

import torch_warmstart as tws

pytestmark = [real.needs_checkpoints, pytest.mark.tensorflow]

RULES = Path(__file__).parent / "rules" / "gpt2.toml"
PATH = "keras-gpt2-toy/model.ckpt"


def config() -> GPT2Config:
    about = json.loads((real.FOLDER / "keras-gpt2-toy" / "hparams.json").read_text())
    return GPT2Config(
        vocab_size=about["n_vocab"],
        n_positions=about["n_ctx"],
        n_embd=about["n_embd"],
        n_head=about["n_head"],
        n_layer=about["n_layer"],
        activation_function="gelu_new",
        layer_norm_epsilon=tf_gpt2.EPSILON,
        attn_implementation="eager",
        bos_token_id=None,
        eos_token_id=None,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_computes_what_its_equations_say(dtype: str) -> None:
    model = GPT2Model(config()).to(getattr(torch, dtype))
    settings = tws.WarmStartSettings(
        str(real.FOLDER / PATH), var_name_to_prev_var_name=tws.load_rules(RULES)
    )
    missing, unused = tws.warm_start(model, settings)
    assert not missing
    assert not unused
    sizes = model.config
    ids = np.random.default_rng(0).integers(0, sizes.vocab_size, (2, sizes.n_positions))
    seen = tf_gpt2.run(real.tf_weights(PATH, dtype), ids, sizes.n_layer, sizes.n_head)
    real.assert_agrees(model, {"input_ids": ids}, {"last_hidden_state": seen["ln_f"]}, layers=seen)


def test_its_kernels_are_of_convolutions_and_not_transposed() -> None:
    model = GPT2Model(config())
    settings = tws.WarmStartSettings(
        str(real.FOLDER / PATH), var_name_to_prev_var_name=tws.load_rules(RULES)
    )
    report = tws.warm_start(model, settings)
    assert report["h.0.attn.c_proj.weight"].change == "squeeze[1]"
    with tws.load_checkpoint(str(real.FOLDER / PATH)) as checkpoint:
        kernel = checkpoint.get_tensor("model/h0/attn/c_proj/w")
    assert torch.equal(model.h[0].attn.c_proj.weight, kernel[0])
