"""Added tokens have the rows that the library `tokenizers` gives them, or the file is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

import torch_warmstart as tws


def written(path: Path, added: list[tuple[str, int]], vocab: dict[str, int]) -> Path:
    """A `tokenizer.json` that says these ids."""
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="a"))
    said = json.loads(tokenizer.to_str())
    flags = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
    said["added_tokens"] = [{"id": row, "content": token, **flags} for token, row in added]
    path.write_text(json.dumps(said))
    return path


@pytest.mark.parametrize("seed", range(200))
def test_as_the_library_or_refused(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    rows = list(range(draw.randint(1, 5)))
    draw.shuffle(rows)
    vocab = dict(zip("abcde", rows, strict=False))
    tokens = draw.sample("abwxyz", draw.randint(0, 4))
    added = [(token, vocab.get(token, draw.randint(0, 8))) for token in tokens]
    if draw.random() < 0.5:  # as the library writes it
        added = [(token, vocab.get(token, len(vocab) + at)) for at, token in enumerate("xyz")]
    path = written(tmp_path / "tokenizer.json", added, vocab)
    library = Tokenizer.from_file(str(path)).get_vocab()
    if any(library[token] != row for token, row in added):
        with pytest.raises(tws.VocabularyError, match="when it reads the file"):
            tws.Vocabulary.load(path)
        return
    vocabulary = tws.Vocabulary.load(path)
    found = zip(library, vocabulary.rows(list(library)).tolist(), strict=True)
    assert dict(found) == library


def test_what_the_file_says_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "tokenizer.json", [("new", 2), ("far", 50)], {"a": 0, "b": 1})
    with pytest.raises(tws.VocabularyError, match="id 50 for the added token 'far', .* gives 3"):
        tws.Vocabulary.load(tmp_path)
    assert tws.Vocabulary.load(Tokenizer.from_file(str(path))).rows(["far"]).tolist() == [3]
