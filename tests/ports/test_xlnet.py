"""A small XLNet that others have saved with what it computed, in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models as real
import torch
from transformers import XLNetConfig, XLNetModel

import torch_warmstart as tws

pytestmark = real.needs_checkpoints

RULES = Path(__file__).parent / "rules" / "xlnet.toml"
FOLDER = real.FOLDER / "keras-xlnet-toy-tune"
PATH = str(FOLDER / "xlnet_model.ckpt")
MEMORY = 5
# With `untie_r` each layer has its own, and TensorFlow keeps all of them in one tensor.
STACKED = ("r_w_bias", "r_r_bias", "r_s_bias", "seg_embed")


def config() -> XLNetConfig:
    about = json.loads((FOLDER / "xlnet_config.json").read_text())
    assert about["untie_r"]
    return XLNetConfig(
        vocab_size=about["n_token"],
        d_model=about["d_model"],
        n_layer=about["n_layer"],
        n_head=about["n_head"],
        d_inner=about["d_inner"],
        ff_activation="gelu_new",
        attn_type="uni",  # the record was made so
        mem_len=MEMORY,
        use_mems_eval=True,
        layer_norm_eps=1e-12,
    )


def recorded(name: str) -> np.ndarray:
    return np.load(FOLDER / f"{name}.npy")


def memories(name: str) -> list[np.ndarray]:
    """Of each layer; transformers has the batch second."""
    return [np.moveaxis(recorded(f"{name}_{layer}"), 0, 1) for layer in (0, 1)]


def port() -> XLNetModel:
    model = XLNetModel(config())
    rules = tws.load_rules(RULES)
    settings = tws.WarmStartSettings(
        PATH,
        var_name_to_prev_var_name=rules,
        var_name_to_layout=rules.layouts,
        on_missing="keep",
    )
    report = tws.warm_start(model, settings)
    assert report.missing_keys == ("mask_emb",)  # for pretraining only, and not saved
    return model


def check(model: XLNetModel) -> tws.PortCheck:
    inputs: dict[str, Any] = {
        "input_ids": recorded("input_ids"),
        "token_type_ids": recorded("seg_ids"),
        "mems": np.stack(memories("mems")).astype(np.float32),
    }
    new_memories = memories("tune_new_mems")  # what goes into each layer
    expected = {"last_hidden_state": recorded("tune_output"), "mems": new_memories}
    layers = {"word_embedding": new_memories[0], "layer.0": new_memories[1]}
    # Closer than usual: with these weights, segments change no more than 5e-6 of the result.
    return tws.verify_port(model, inputs, expected, layers=layers, rtol=1e-6)


def test_it_computes_what_was_recorded() -> None:
    checked = check(port())
    assert checked, f"\n{checked}"
    assert checked.first_departure is None


@pytest.mark.parametrize("name", [*STACKED, "r", "o"])
def test_without_one_of_its_tensors_the_first_layer_departs(name: str) -> None:
    model = port()
    with torch.no_grad():
        getattr(model.layer[0].rel_attn, name).zero_()
    assert check(model).first_departure == "layer.0"
