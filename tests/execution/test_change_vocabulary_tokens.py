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
FSMT_OUT = ("embed_tokens", "output_projection")


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


def _translator():
    sizes = {"d_model": 8, "max_position_embeddings": 16, "decoder_vocab_size": 20}
    for half in ("encoder", "decoder"):
        more = {"layers": 1, "attention_heads": 2, "ffn_dim": 8}
        sizes |= {f"{half}_{name}": value for name, value in more.items()}
    config = transformers.MarianConfig(
        **sizes,
        vocab_size=20,
        pad_token_id=3,
        eos_token_id=0,
        decoder_start_token_id=3,
        forced_eos_token_id=0,
        share_encoder_decoder_embeddings=False,
    )
    return transformers.MarianMTModel(config).eval()


def _exchanged(model, going_in: list[str], coming_out: list[str]) -> None:
    infos = {
        "model.encoder.embed_tokens.weight": tws.VocabInfo(going_in, old_vocab=OLD),
        "model.decoder.embed_tokens.weight": tws.VocabInfo(coming_out, old_vocab=OLD),
    }
    tws.change_vocabulary(model, infos)


def test_tokens_of_a_translator_are_those_that_come_out():
    model = _translator()
    model.final_logits_bias.normal_()
    going_in, coming_out = ["t0", "t7", "t5", "t3", "x"], ["t9", "t8", "t0", "t3"]
    source, target = ("t7", "t5", "t0"), ("t3", "t8", "t9")
    before = model(_rows(OLD, *source), decoder_input_ids=_rows(OLD, *target)).logits
    _exchanged(model, going_in, coming_out)
    config = model.config
    assert (config.vocab_size, config.decoder_vocab_size) == (5, 4)
    for said in (config, model.generation_config):
        assert (said.eos_token_id, said.forced_eos_token_id) == (2, 2)
        assert (said.pad_token_id, said.decoder_start_token_id) == (3, 3)
    after = model(_rows(going_in, *source), decoder_input_ids=_rows(coming_out, *target)).logits
    kept = [OLD.index(token) for token in coming_out]
    torch.testing.assert_close(after, before[..., kept])


def test_a_padding_that_two_vocabularies_have_in_two_rows_is_refused():
    model = _translator()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(tws.PlanError, match="pad_token_id=3 for two vocabularies") as refused:
        _exchanged(model, ["t0", "t3"], ["t3", "t0"])
    assert [problem.code for problem in refused.value.problems] == ["token-in-two-rows"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model.config.vocab_size, model.config.pad_token_id) == (20, 3)


@pytest.mark.parametrize("coming_out", [None, ["t2", "t1", "t5"]], ids=["alone", "both"])
def test_sizes_that_fsmt_calls_otherwise_follow_their_own_tables(coming_out):
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers"), 1)
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    config = transformers.FSMTConfig(
        langs=["a", "b"], src_vocab_size=20, tgt_vocab_size=20, d_model=8, **sizes
    )
    config.tie_word_embeddings = False
    model = transformers.FSMTForConditionalGeneration(config)
    going_in = tws.VocabInfo(["t0", "t1", "t2", "t7", "x"], old_vocab=OLD)
    infos = {"model.encoder.embed_tokens.weight": going_in}
    if coming_out is not None:
        info = tws.VocabInfo(coming_out, old_vocab=OLD)
        infos |= {f"model.decoder.{name}.weight": info for name in FSMT_OUT}
    tws.change_vocabulary(model, infos)
    size = 20 if coming_out is None else 3
    assert (model.config.src_vocab_size, model.config.tgt_vocab_size) == (5, size)


def test_what_goes_in_alone_leaves_the_tokens_that_come_out():
    halves = [
        transformers.BertConfig(**{**SIZES, "vocab_size": size, "is_decoder": size == 30})
        for size in (20, 30)
    ]
    halves[1].add_cross_attention = True
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*halves)
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    model = transformers.EncoderDecoderModel(config)
    name = "encoder.embeddings.word_embeddings.weight"
    tws.change_vocabulary(model, {name: tws.VocabInfo(NEW, old_vocab=OLD)})
    assert (model.config.decoder_start_token_id, model.config.pad_token_id) == (2, 0)
    assert (model.config.encoder.pad_token_id, model.config.encoder.vocab_size) == (4, 8)
    assert (model.config.decoder.pad_token_id, model.config.decoder.vocab_size) == (0, 30)


def test_named_and_paired_tokens_of_whisper_follow():
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=20, n_embd=4, n_layer=1, n_head=1, n_positions=8)
    )
    model.generation_config.forced_decoder_ids = [[1, 7], [2, None], [3, 3]]
    model.generation_config.lang_to_id = {"<|en|>": 19, "<|de|>": 0}
    tws.change_vocabulary(model, {"transformer.wte.weight": tws.VocabInfo(NEW, old_vocab=OLD)})
    assert model.generation_config.forced_decoder_ids == [[1, 0], [2, None], [3, 3]]
    assert model.generation_config.lang_to_id == {"<|en|>": 2, "<|de|>": 4}


def test_one_half_of_a_translator_changes_alone():
    model = _translator()
    model.final_logits_bias.normal_()
    source, target = ("t7", "t5", "t0"), ("t3", "t8")
    before = model(_rows(OLD, *source), decoder_input_ids=_rows(OLD, *target)).logits
    info = tws.VocabInfo(["t0", "t7", "t5", "t3", "x"], old_vocab=OLD)
    tws.change_vocabulary(model, {"model.encoder.embed_tokens.weight": info})
    assert (model.config.vocab_size, model.config.decoder_vocab_size) == (5, 20)
    assert (model.config.eos_token_id, model.config.pad_token_id) == (0, 3)
    new = _rows(["t0", "t7", "t5", "t3", "x"], *source)
    after = model(new, decoder_input_ids=_rows(OLD, *target)).logits
    torch.testing.assert_close(after, before)
    info = tws.VocabInfo(["t3", "t0"], old_vocab=OLD)
    with pytest.raises(tws.PlanError, match="pad_token_id=3 for two vocabularies"):
        tws.change_vocabulary(model, {"model.decoder.embed_tokens.weight": info})


def _of_gemma():
    return transformers.Gemma3nTextConfig(
        **{**SIZES, "num_key_value_heads": 1, "head_dim": 4, "vocab_size_per_layer_input": 20},
        hidden_size_per_layer_input=4,
        laurel_rank=2,
        altup_num_inputs=2,
        num_kv_shared_layers=0,
        layer_types=["full_attention"],
        activation_sparsity_pattern=[0.0],
    )


def test_a_second_table_of_the_tokens_is_warned_of():
    model = transformers.Gemma3nForCausalLM(_of_gemma())
    info = tws.VocabInfo(["t0", "t2", "t1", "t3"], old_vocab=OLD)
    with pytest.warns(tws.WarmStartWarning, match="per_layer.weight keeps its rows"):
        report = tws.change_vocabulary(model, {"model.embed_tokens.weight": info})
    assert [note.code for note in report.notes] == ["table-left"]


def test_a_second_table_of_the_tokens_changes_with_its_size():
    config = _of_gemma()
    model = transformers.Gemma3nForCausalLM(config)
    names = ["model.embed_tokens.weight", "model.embed_tokens_per_layer.weight"]
    info = tws.VocabInfo(["t0", "t2", "t1", "t3"], old_vocab=OLD)
    report = tws.change_vocabulary(model, dict.fromkeys(names, info))
    assert not [note for note in report.notes if note.code == "table-left"]
    assert (config.vocab_size, config.vocab_size_per_layer_input) == (4, 4)
    assert model(torch.tensor([[1, 3]])).logits.shape == (1, 2, 4)


@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_classes_keep_their_names(kind: str):
    labels = dict(enumerate("abcd"))
    config = getattr(transformers, f"{kind}Config")(
        **SIZES, id2label=labels, label2id={name: row for row, name in labels.items()}
    )
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    before = model(_rows(OLD, "t5", "t6")).logits
    (head,) = (name for name, value in model.named_parameters() if value.shape == (4, 8))
    head = head.removesuffix(".weight")
    tws.change_vocabulary(model, {head: tws.VocabInfo(["d", "x", "a"], old_vocab=list("abcd"))})
    assert model.config.id2label == {0: "d", 1: "x", 2: "a"}
    assert model.config.label2id == {"d": 0, "x": 1, "a": 2}
    assert (model.config.num_labels, model.num_labels) == (3, 3)
    after = model(_rows(OLD, "t5", "t6"), labels=torch.tensor([2]))
    torch.testing.assert_close(after.logits[:, [0, 2]], before[:, [3, 0]])
    assert after.loss.isfinite()
