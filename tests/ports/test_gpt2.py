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


def without_the_width(path: str) -> dict[str, torch.Tensor]:
    """The tensors, with the kernels of convolutions of width 1, [1, in, out], as [in, out].

    That is how the Conv1D of transformers has them: it multiplies by its weight untransposed.
    """
    with tws.load_checkpoint(path) as checkpoint:
        tensors = {key: checkpoint.get_tensor(key) for key in checkpoint}
    return {key: t.squeeze(0) if t.ndim == 3 else t for key, t in tensors.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_computes_what_its_equations_say(dtype: str) -> None:
    model = GPT2Model(config()).to(getattr(torch, dtype))
    source = without_the_width(str(real.FOLDER / PATH))
    rules = tws.load_rules(RULES)
    missing, unused = tws.warm_start(
        model, tws.WarmStartSettings(source, var_name_to_prev_var_name=rules)
    )
    assert not missing
    assert not unused
    sizes = model.config
    ids = np.random.default_rng(0).integers(0, sizes.vocab_size, (2, sizes.n_positions))
    seen = tf_gpt2.run(real.tf_weights(PATH, dtype), ids, sizes.n_layer, sizes.n_head)
    real.assert_agrees(model, {"input_ids": ids}, {"last_hidden_state": seen["ln_f"]}, layers=seen)


def test_its_kernels_do_not_fit_as_they_are_and_none_is_taken_for_a_transposed_one() -> None:
    model = GPT2Model(config())
    settings = tws.WarmStartSettings(
        str(real.FOLDER / PATH), var_name_to_prev_var_name=tws.load_rules(RULES)
    )
    with pytest.raises(tws.PlanError, match=r"c_proj\.weight has shape \[15, 15\], but .*c_proj/w"):
        tws.warm_start(model, settings)
