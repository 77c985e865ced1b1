"""Tables of a Hugging Face model beside those that it gives as its own, and of other heights."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import torch_warmstart as tws

transformers = pytest.importorskip("transformers")

OLD = [f"t{number}" for number in range(20)]
NEW = ["t1", "t0", *OLD[2:], "new"]
TABLE = "transformer.wte.weight"


def _model(width: int = 8) -> Any:
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=width, n_layer=2, n_head=2, n_positions=16, bos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def _info(new: list[str] = NEW, old: list[str] = OLD, **more: Any) -> tws.VocabInfo:
    return tws.VocabInfo(new, old_vocab=old, **more)


@pytest.mark.parametrize(
    ("beside", "name", "axis"),
    [
        (nn.Linear(8, 20, bias=False), "weight", 0),
        (nn.ParameterDict({"scale": nn.Parameter(torch.ones(20))}), "scale", 0),
        (nn.ParameterDict({"columns": nn.Parameter(torch.ones(3, 20))}), "columns", 1),
    ],
    ids=["head", "scale", "columns"],
)
def test_what_has_a_row_for_each_token_is_warned_of_until_it_is_named(beside, name, axis):
    model = _model()
    model.beside = beside
    text = f"beside.{name} keeps its rows"
    hint = "too, with axis=1." if axis else "too."
    with pytest.warns(tws.WarmStartWarning, match=f"{text}.*{hint}"):
        tws.change_vocabulary(model, {TABLE: _info()})
    model = _model()
    model.beside = beside
    tws.change_vocabulary(model, {TABLE: _info(), f"beside.{name}": _info(axis=axis)})
    assert model.get_parameter(f"beside.{name}").shape[axis] == 21


def test_a_width_of_the_model_is_no_vocabulary():
    model = _model(width=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error", tws.WarmStartWarning)
        tws.change_vocabulary(model, {TABLE: _info()})


def test_a_head_without_rows_for_special_tokens_must_be_named_too():
    model = _model()
    model.set_output_embeddings(nn.Linear(8, 19, bias=False))
    model.config.vocab_size = 19
    with pytest.raises(tws.PlanError, match=r"name 'lm_head.weight' too, by .* its 19 rows"):
        tws.change_vocabulary(model, {TABLE: _info()})
    infos = {TABLE: _info(), "lm_head.weight": _info([*NEW[:19], "new"], OLD[:19])}
    tws.change_vocabulary(model, infos)
    assert (model.config.vocab_size, model.lm_head.weight.shape[0]) == (20, 20)
    assert model.transformer.wte.num_embeddings == 21
