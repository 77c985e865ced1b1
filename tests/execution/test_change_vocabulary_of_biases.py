"""Biases follow the vocabulary of the weights that they belong to, or are refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def test_a_layer_whose_bias_would_get_other_rows_is_refused():
    head = nn.ModuleDict({"h": nn.Linear(2, 3)})
    before = {name: value.clone() for name, value in head.state_dict().items()}
    old = ["a", "b", "c"]
    infos = {
        "h.weight": tws.VocabInfo(["c", "a"], old_vocab=old),
        "h.bias": tws.VocabInfo(["a", "n", "b"], old_vocab=old),
    }
    with pytest.raises(tws.PlanError, match="h.bias and h.weight get other rows than each other"):
        tws.change_vocabulary(head, infos)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    both = {name: tws.VocabInfo(["c", "n", "a"], old_vocab=old) for name in ("h.weight", "h.bias")}
    tws.change_vocabulary(head, both)
    assert torch.equal(head.h.bias[[0, 2]], before["h.bias"][[2, 0]])


@pytest.mark.parametrize("is_tied", [False, True], ids=["untied", "tied"])
def test_a_bias_that_comes_along_follows_the_mixture_of_its_weight(is_tied):
    model = nn.ModuleDict({"e": nn.Embedding(3, 2), "h": nn.Linear(2, 3)})
    if is_tied:
        model.h.weight = model.e.weight
    nn.init.normal_(model.h.bias, mean=-9.0)
    bias = model.h.bias.detach().clone()
    rows = tws.init.alias({"n": "b"}) | tws.init.mean()
    info = tws.VocabInfo(["n", "a", "m"], old_vocab=["a", "b", "c"], backup_initializer=rows)
    report = tws.change_vocabulary(model, {"e.weight" if is_tied else "h.weight": info})
    assert model.h.bias[:2].equal(bias[[1, 0]])  # zeros would be far likelier than all old tokens
    torch.testing.assert_close(model.h.bias[2], bias.mean())
    assert str(report["h.bias"].new_rows) == "1 alias, 1 mean"


def test_what_fills_a_matrix_leaves_the_bias_zeros():
    model = nn.ModuleDict({"h": nn.Linear(2, 3)})
    fan_based = nn.init.xavier_uniform_  # which takes no bias
    info = tws.VocabInfo(["a", "n"], old_vocab=["a", "b", "c"], backup_initializer=fan_based)
    tws.change_vocabulary(model, {"h.weight": info})
    assert model.h.weight[1].any()
    assert model.h.bias[1] == 0


def test_the_bias_of_gpt2s_linear_layer_follows_its_outputs():
    model = pytest.importorskip("transformers").pytorch_utils.Conv1D(3, 2)
    nn.init.normal_(model.bias)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    info = tws.VocabInfo(["c", "n", "b", "a"], old_vocab=["a", "b", "c"], axis=1)
    tws.change_vocabulary(model, {"weight": info})
    assert torch.equal(model.weight[:, [3, 2, 0]], weight)
    assert torch.equal(model.bias[[3, 2, 0]], bias)
    assert model(torch.zeros(1, 2)).shape == (1, 4)
    inputs = tws.VocabInfo(["a", "b", "c"], old_vocab=["a", "b"])
    tws.change_vocabulary(model, {"weight": inputs})
    assert model(torch.zeros(1, 3)).shape == (1, 4)


def _model(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 4}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1}
    ffn = {"encoder_ffn_dim": 4, "decoder_ffn_dim": 4, "max_position_embeddings": 8}
    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=8, **sizes, **heads, **ffn, **tokens, forced_eos_token_id=2
    )
    names = {"Bart": "BartForConditionalGeneration", "Marian": "MarianMTModel"}
    return getattr(transformers, names[kind])(config)


@pytest.mark.parametrize("kind", ["Bart", "Marian"])
def test_the_bias_of_bart_and_its_kin_follows(kind):
    model = _model(kind).eval()
    model.final_logits_bias.copy_(torch.arange(8.0)[None])
    model.generation_config.suppress_tokens = [4, 5]
    model.generation_config.bad_words_ids = [[4], [5, 6]]
    old = [f"t{at}" for at in range(8)]
    new = ["x", *old, "y"]
    tws.change_vocabulary(model, {"model.shared.weight": tws.VocabInfo(new, old_vocab=old)})
    assert model.final_logits_bias.tolist() == [[0.0, *range(8), 0.0]]
    assert model.config.vocab_size == 10
    assert getattr(model.config, "decoder_vocab_size", 10) == 10
    assert model.generation_config.suppress_tokens == [5, 6]
    assert model.generation_config.bad_words_ids == [[5], [6, 7]]
    ids = torch.tensor([[1, 2, 9]])
    assert model(input_ids=ids, decoder_input_ids=ids).logits.shape == (1, 3, 10)


def test_tokens_that_are_not_to_come_out_and_are_gone_are_left_out_and_the_others_move():
    model = _model("Bart")
    model.generation_config.suppress_tokens = [0, 4, 5]
    model.generation_config.bad_words_ids = [[4], [4, 5], [5, 6]]
    old = [f"t{at}" for at in range(8)]
    new = ["x", *(token for token in old if token != "t4")]
    report = tws.change_vocabulary(
        model, {"model.shared.weight": tws.VocabInfo(new, old_vocab=old)}
    )
    assert model.generation_config.suppress_tokens == [1, 5]
    assert model.generation_config.bad_words_ids == [[5, 6]]
    gone = [token for token in new if token != "t6"]
    tws.change_vocabulary(model, {"model.shared.weight": tws.VocabInfo(gone, old_vocab=new)})
    assert model.generation_config.bad_words_ids is None  # `generate` refuses an empty list
    assert not [note for note in report.notes if note.code == "token-id-left"]


@pytest.mark.parametrize(
    ("said", "moved"),
    [
        ([[[4], 1.0], [[5, 6], -2.0]], [[[5], 1.0], [[6, 7], -2.0]]),
        ({(4,): 1.0, (5, 6): -2.0}, {(5,): 1.0, (6, 7): -2.0}),
    ],
    ids=["as in json", "mapping"],
)
def test_tokens_that_are_made_more_likely_stay_the_same_tokens(said, moved):
    old = [f"t{at}" for at in range(8)]
    model = _model("Bart")
    model.generation_config.sequence_bias = said
    info = tws.VocabInfo(["x", *old], old_vocab=old)
    report = tws.change_vocabulary(model, {"model.shared.weight": info})
    assert model.generation_config.sequence_bias == moved
    assert not report.notes
    model = _model("Bart")
    model.generation_config.sequence_bias = said
    gone = tws.VocabInfo([*old[:6], "y"], old_vocab=old)  # t6 is no token any more
    with pytest.warns(tws.WarmStartWarning, match="sequence_bias"):
        tws.change_vocabulary(model, {"model.shared.weight": gone})
    assert model.generation_config.sequence_bias == said
