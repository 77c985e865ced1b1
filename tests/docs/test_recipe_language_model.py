"""The exchange of a tokenizer in docs/language_models.md, on models made from their configurations.

Every row is compared with a slow loop: a token that both tokenizers have keeps its row, a token of
one meaning keeps the row of that meaning, and any other begins as the mean of its pieces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import torch_warmstart as tws

PAGE = Path(__file__).parents[2] / "docs" / "language_models.md"
OLD_TEXT = "the cat sat on the mat and the dog sat on the log, as cats and dogs do. " * 8
NEW_TEXT = "a network of networks is a net of nets, and nets catch cats on the networks' logs. " * 8
pytestmark = pytest.mark.filterwarnings("ignore:::transformers")


def block() -> str:
    text = PAGE.read_text(encoding="utf-8").partition("## Another tokenizer in ten lines")[2]
    return text.partition("```python\n")[2].partition("```")[0]


def write_tokenizer(folder: str, text: str, special: dict[str, str]) -> int:
    """A tokenizer in a folder; how many tokens it has."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=alphabet,
        special_tokens=[*special.values()],
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    return len(fast)


def write_model(folder: str, height: int, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=height,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_a_tokenizer_is_exchanged_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool, padded: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    size = write_tokenizer(
        "old_model",
        OLD_TEXT,
        {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"},
    )
    write_tokenizer(
        "new_tokenizer",
        NEW_TEXT,
        {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "[PAD]"},
    )
    write_model("old_model", 320 if padded else size, tied)
    code = block()
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    if tied:
        code = code.replace('["model.embed_tokens.weight", "lm_head.weight"]', '["lm_head.weight"]')
    known: dict[str, Any] = {}
    exec(code, known)

    transformers = pytest.importorskip("transformers")
    was = transformers.AutoModelForCausalLM.from_pretrained("old_model")
    made = transformers.AutoModelForCausalLM.from_pretrained("new_model")
    old, new = known["old"], known["new"]
    assert made.config.vocab_size == len(new) != was.config.vocab_size
    ids = (new.pad_token_id, new.bos_token_id, new.eos_token_id)
    assert (made.config.pad_token_id, made.config.bos_token_id, made.config.eos_token_id) == ids
    assert (made.lm_head.weight is made.model.embed_tokens.weight) == tied
    tables = ("model.embed_tokens", "lm_head")
    for name in tables:
        before = was.get_submodule(name).weight.detach()
        check_rows(made.get_submodule(name).weight.detach(), before, old, new)
    assert torch.equal(made.model.norm.weight, was.model.norm.weight)
    tokens = new("the networks sat", return_tensors="pt")["input_ids"]
    assert made(tokens).logits.shape == (1, tokens.shape[1], len(new))


def check_rows(weight: torch.Tensor, before: torch.Tensor, old: Any, new: Any) -> None:
    rows, meaning = old.get_vocab(), {}
    for role in ("pad_token", "bos_token", "eos_token"):
        meaning[getattr(new, role)] = rows[getattr(old, role)]
    counts = {"same": 0, "meaning": 0, "pieces": 0}
    for token, row in new.get_vocab().items():
        if token in rows:
            assert torch.equal(weight[row], before[rows[token]]), token
            counts["same"] += 1
        elif token in meaning:
            assert torch.equal(weight[row], before[meaning[token]]), token
            counts["meaning"] += 1
        else:
            pieces = old.tokenize(new.convert_tokens_to_string([token]))
            mean = torch.stack([before[rows[piece]] for piece in pieces]).mean(0)
            torch.testing.assert_close(weight[row], mean, msg=token)
            counts["pieces"] += 1
    assert counts["meaning"] == 3
    assert counts["same"] > 256
    assert counts["pieces"] > 10


def test_the_report_shows_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    size = write_tokenizer("old_model", OLD_TEXT, {"pad_token": "<pad>"})
    write_tokenizer("new_tokenizer", NEW_TEXT, {"pad_token": "<pad>"})
    write_model("old_model", size, False)
    known: dict[str, Any] = {}
    exec(block(), known)
    report = known["report"]
    assert isinstance(report, tws.WarmStartReport)
    account = report["lm_head.weight"].new_rows
    assert "Ġ" in account.show("Ġnetwork")
    shared = set(known["old"].get_vocab()) & set(known["new"].get_vocab())
    assert sum(count for _, count in account.answered) == len(known["new"]) - len(shared)
