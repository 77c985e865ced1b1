"""Models whose files transformers writes by other names than their modules have."""

from __future__ import annotations

import importlib

import pytest
import torch
import transformers as hf
from torch import nn
from transformers import core_model_loading

import torch_warmstart as tws

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
TEXT, IMAGE = {**TINY, "vocab_size": 32}, {**TINY, "image_size": 8, "patch_size": 4}
BY = "renamed as transformers does"


def _llava():
    text = hf.LlamaConfig(**TEXT, num_key_value_heads=2)
    config = hf.LlavaConfig(vision_config=hf.CLIPVisionConfig(**IMAGE), text_config=text)
    return hf.LlavaForConditionalGeneration(config)


MODELS = {
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**TEXT)),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**IMAGE)),
    "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**IMAGE)),
    "llava": _llava,
}


def _saved(model, path):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(path)
    return model


def _assert_equal(model, other):
    pairs = zip(model.named_parameters(), other.named_parameters(), strict=True)
    assert [name for (name, a), (_, b) in pairs if not torch.equal(a, b)] == []


@pytest.mark.parametrize("name", MODELS)
def test_what_transformers_has_saved_is_found_by_its_own_tables(name, tmp_path):
    saved = _saved(MODELS[name](), tmp_path)
    model = MODELS[name]()
    report = tws.warm_start(model, str(tmp_path))
    _assert_equal(model, saved)
    assert any(account.reason == BY for account in report.variables)
    assert not report.unexpected_keys


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compiled", "parallel"])
def test_what_wraps_a_model_makes_no_difference(wrap, tmp_path):
    saved = _saved(MODELS["vit"](), tmp_path)
    model = MODELS["vit"]()
    tws.warm_start(wrap(model), str(tmp_path))
    _assert_equal(model, saved)


def test_rows_go_along(tmp_path):
    saved = _saved(MODELS["gpt_neox"](), tmp_path)
    old = [f"t{number}" for number in range(32)]
    info = tws.VocabInfo(old[::-1], old_vocab=old)
    settings = tws.WarmStartSettings(str(tmp_path), ".*", {"lm_head.weight": info})
    model = MODELS["gpt_neox"]()
    tws.warm_start(model, settings)
    assert torch.equal(model.lm_head.weight, saved.lm_head.weight.flip(0))


def test_a_model_and_its_base_take_from_each_other(tmp_path):
    whole = _saved(hf.BertForMaskedLM(hf.BertConfig(**TEXT)), tmp_path / "whole")
    base = hf.BertModel(hf.BertConfig(**TEXT), add_pooling_layer=False)
    tws.warm_start(base, str(tmp_path / "whole"))
    _assert_equal(base, whole.bert)
    base.save_pretrained(tmp_path / "base")
    other = hf.BertForMaskedLM(hf.BertConfig(**TEXT))
    tws.warm_start(other, tws.WarmStartSettings(str(tmp_path / "base"), on_missing="keep"))
    _assert_equal(other.bert, whole.bert)


def test_what_it_joins_from_several_is_refused_with_what_to_do(tmp_path):
    config = hf.MixtralConfig(**TEXT, num_key_value_heads=2, num_local_experts=2)
    saved = _saved(hf.MixtralForCausalLM(config), tmp_path)
    model = hf.MixtralForCausalLM(config)
    with pytest.raises(tws.PlanError, match="would be made by transformers") as caught:
        tws.warm_start(model, str(tmp_path))
    assert "pass MixtralForCausalLM.from_pretrained(...).state_dict()" in str(caught.value)
    tws.warm_start(model, hf.MixtralForCausalLM.from_pretrained(tmp_path).state_dict())
    _assert_equal(model, saved)


def test_without_its_tables_names_are_read_as_they_are(tmp_path, monkeypatch):
    _saved(MODELS["gpt_neox"](), tmp_path)
    tables = importlib.import_module("transformers.conversion_mapping")
    monkeypatch.delattr(tables, "get_model_conversion_mapping")
    model = MODELS["gpt_neox"]()
    with pytest.raises(tws.PlanError, match=r"lm_head.weight is not .*'embed_out.weight'"):
        tws.warm_start(model, str(tmp_path))


def test_another_model_of_such_names_is_not_asked_about(tmp_path):
    _saved(MODELS["gpt_neox"](), tmp_path)
    model = nn.ModuleDict({"lm_head": nn.Linear(16, 32, bias=False)})
    with pytest.raises(tws.PlanError, match="not in the checkpoint"):
        tws.warm_start(model, str(tmp_path))


def test_what_it_makes_of_one_tensor_is_told_together(tmp_path):
    config = hf.RadioConfig(**IMAGE)
    saved = _saved(hf.RadioModel(config), tmp_path)
    model = hf.RadioModel(config)
    with pytest.raises(tws.PlanError, match=r"\(and 11 other variables\) would be made") as caught:
        tws.warm_start(model, str(tmp_path))
    assert len({problem.text for problem in caught.value.problems}) == 1
    tws.warm_start(model, hf.RadioModel.from_pretrained(tmp_path).state_dict())
    _assert_equal(model, saved)


def test_renamings_that_wait_for_a_key_do_not_depend_on_the_order_in_the_file(monkeypatch):
    renaming = core_model_loading.GroupWeightRename(
        [r"old\.norm0", r"old\.norm1"], ["norms.norm1", "norms.norm2"]
    )
    tables = importlib.import_module("transformers.conversion_mapping")
    monkeypatch.setattr(tables, "get_model_conversion_mapping", lambda _: [renaming])
    model = hf.BertModel(hf.BertConfig(**TEXT))
    model.norms = nn.ModuleDict({name: nn.LayerNorm(2) for name in ("norm1", "norm2")})
    state = {f"old.norm{n}.{leaf}": torch.rand(2) for n in (1, 0) for leaf in ("weight", "bias")}
    tws.warm_start(model, tws.WarmStartSettings(state, "norms"))
    assert torch.equal(model.norms["norm2"].weight, state["old.norm1.weight"])


def test_a_tensor_that_is_one_variables_by_name_is_not_another_ones_by_its_tables(monkeypatch):
    renaming = core_model_loading.WeightRenaming(r"^norm\.", "inner.norm.")
    tables = importlib.import_module("transformers.conversion_mapping")
    monkeypatch.setattr(tables, "get_model_conversion_mapping", lambda _: [renaming])
    model = hf.BertModel(hf.BertConfig(**TEXT))
    model.norm, model.inner = nn.LayerNorm(2), nn.ModuleDict({"norm": nn.LayerNorm(2)})
    state = {"norm.weight": torch.rand(2), "norm.bias": torch.rand(2)}
    with pytest.raises(tws.PlanError, match=r"inner.norm.weight .* would be made by transformers"):
        tws.warm_start(model, tws.WarmStartSettings(state, r"(inner\.)?norm"))
