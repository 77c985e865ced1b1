"""Numbers of tokens that a Hugging Face model's modules keep besides its config."""

from __future__ import annotations

import pytest
import torch

import torch_warmstart as tws

transformers = pytest.importorskip("transformers")

OLD = [f"t{number}" for number in range(20)]
NEW = ["t7", "new", "t19", "t3", "t0", "t5", "t2", "t1"]
SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}


def _rows(vocabulary: list[str], *tokens: str) -> torch.Tensor:
    return torch.tensor([[vocabulary.index(token) for token in tokens]])


def test_clip_still_looks_for_its_end_of_text():
    tokens = {"bos_token_id": 0, "eos_token_id": 7, "pad_token_id": 1}
    model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**SIZES, **tokens)).eval()
    said = ("t0", "t5", "t7", "t19")
    before = model(_rows(OLD, *said)).pooler_output
    name = next(name for name, value in model.named_parameters() if value.shape == (20, 8))
    tws.change_vocabulary(model, {name: tws.VocabInfo(NEW, old_vocab=OLD)})
    assert torch.equal(model(_rows(NEW, *said)).pooler_output, before)
    kept = [vars(module).get("eos_token_id", 0) for module in model.modules()]
    assert kept == [0] * len(kept)


def test_the_index_of_a_token_follows():
    text = {"model_type": "llama", "num_key_value_heads": 1, **SIZES}
    vision = {"model_type": "clip_vision_model", **SIZES, "image_size": 8, "patch_size": 4}
    del vision["vocab_size"], vision["max_position_embeddings"]
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=19)
    model = transformers.LlavaForConditionalGeneration(config)
    tables = [name for name, value in model.named_parameters() if value.shape == (20, 8)]
    tws.change_vocabulary(model, dict.fromkeys(tables, tws.VocabInfo(NEW, old_vocab=OLD)))
    assert model.config.image_token_index == 2


def test_positions_are_counted_from_the_padding_row():
    config = transformers.RobertaConfig(**SIZES, pad_token_id=1, bos_token_id=0, eos_token_id=3)
    model = transformers.RobertaModel(config, add_pooling_layer=False).eval()
    name = "embeddings.word_embeddings.weight"
    with pytest.raises(tws.PlanError, match="padding, row 1, would be row 7") as refused:
        tws.change_vocabulary(model, {name: tws.VocabInfo(NEW, old_vocab=OLD)})
    assert [problem.code for problem in refused.value.problems] == ["padding-row-moved"]
    assert model.config.pad_token_id == 1
    before = model(_rows(OLD, "t0", "t5", "t1")).last_hidden_state
    kept = ["t5", "t1", "new", "t0", "t3"]
    tws.change_vocabulary(model, {name: tws.VocabInfo(kept, old_vocab=OLD)})
    assert torch.equal(model(_rows(kept, "t0", "t5", "t1")).last_hidden_state, before)
