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
# `untie_r`: each layer has its own, and TensorFlow keeps all of them in one tensor.
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
    report = tws.warm_start(
        model, tws.WarmStartSettings(PATH, var_name_to_prev_var_name=rules, on_missing="keep")
    )
    by_layer = unstacked(model.config.n_layer)
    # mask_emb is for pretraining only, and was not saved.
    assert set(report.missing_keys) == {"mask_emb", *by_layer}
    names = r"layer\.\d+\.rel_attn\.(r_[wrs]_bias|seg_embed)$"
    tws.warm_start(model, tws.WarmStartSettings(by_layer, vars_to_warm_start=names))
    return model


def unstacked(layers: int) -> dict[str, torch.Tensor]:
    """What TensorFlow keeps as [layers, ...], by torch's names."""
    with tws.load_checkpoint(PATH) as checkpoint:
        stacks = {name: checkpoint.get_tensor(f"model/transformer/{name}") for name in STACKED}
    return {
        f"layer.{layer}.rel_attn.{name}": stack[layer]
        for name, stack in stacks.items()
        for layer in range(layers)
    }


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
