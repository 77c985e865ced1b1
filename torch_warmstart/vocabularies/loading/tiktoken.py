"""tiktoken's files: base64 of a token's bytes, a space and its rank in each line."""

from __future__ import annotations

import base64
import binascii

from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import VocabularyError
from torch_warmstart.vocabularies.loading.arrays import from_mapping
from torch_warmstart.vocabularies.loading.content import TIKTOKEN_LINE


def read_tiktoken(raw: bytes, url: str) -> Vocabulary:
    """The tokens of a file by their ranks; its special tokens are not in it."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(raw.split(b"\n"), 1):
        match = TIKTOKEN_LINE.fullmatch(line)
        if match is None:
            if not line.strip():
                continue
            raise VocabularyError(
                f"{url}: line {number:,} is not a token in base64, a space and a rank, as each "
                "line of a tiktoken file is."
            )
        token = _decoded(match[1], url, number)
        if token in ranks:
            raise VocabularyError(f"{url}: line {number:,} has a token that a line before has.")
        ranks[token] = int(match[2])
    return from_mapping(ranks, url, is_padded=True)


def _decoded(text: bytes, url: str, number: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise VocabularyError(f"{url}: line {number:,} is not base64: {error}.") from error
