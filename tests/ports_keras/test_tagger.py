"""A tagger: words, an LSTM in both directions and a tag for every word, from both Kerases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_port import assert_agrees, floats, numbers, outputs_by_layer, port, randomise
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import torch_warmstart as tws

pytestmark = pytest.mark.tensorflow

# Row 0 is for padding.
WORDS = ["<pad>", "the", "a", "old", "dog", "cat", "saw", "ate", "fish", "quickly", "and", "slept"]
NEW_WORDS = ["<pad>", "fish", "newt", "cat", "the", "toad", "saw", "and", "ate", "dreamt", "dog"]
SIZE, STATE, TAGS, LENGTH = 6, 5, 4, 7


def keras_tagger(keras: Any, masked: bool = False) -> Any:
    layers = keras.layers
    words_in = layers.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(len(WORDS), SIZE, mask_zero=masked, name="words")(words_in)
    lstm = layers.LSTM(STATE, return_sequences=True)
    x = layers.Bidirectional(lstm, name="lstm")(x)
    model = keras.Model(words_in, layers.Dense(TAGS, name="tags")(x))
    randomise(model)
    return model


class Tagger(nn.Module):
    def __init__(self, words: int = len(WORDS)):
        super().__init__()
        self.words = nn.Embedding(words, SIZE)
        self.lstm = nn.LSTM(SIZE, STATE, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(2 * STATE, TAGS)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        x = self.words(ids)
        if lengths is None:
            return self.tags(self.lstm(x)[0])
        # Keras skips what is masked in both directions; so does a packed sequence.
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=LENGTH)
        return self.tags(x)


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def library(request: pytest.FixtureRequest) -> Any:
    """Keras 3, and Keras 2 as it lives on."""
    return pytest.importorskip(request.param)


@pytest.fixture(scope="module")
def trained(library: Any) -> Any:
    return keras_tagger(library)


@pytest.fixture
def sentences() -> np.ndarray:
    return np.random.default_rng(2).integers(1, len(WORDS), (8, LENGTH)).astype(np.int32)


# What each library saves it as.
FILES = {
    "keras": ["tagger.keras", "tagger.weights.h5", "tagger.ckpt"],
    "tf_keras": ["tagger.keras", "tagger.h5", "tagger.ckpt"],
}


def save(model: Any, path: Path) -> Path:
    tf = pytest.importorskip("tensorflow")
    if path.suffix == ".ckpt":
        tf.train.Checkpoint(model).write(str(path))
    elif path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


@pytest.mark.parametrize(
    ("library", "file"),
    [(name, file) for name, files in FILES.items() for file in files],
    indirect=["library"],
)
def test_every_layer_agrees_without_a_rename(library, trained, sentences, tmp_path, file):
    model = Tagger()
    plan = port(model, save(trained, tmp_path / file))
    assert plan.audits == ()
    layers = outputs_by_layer(library, trained, sentences, ["words", "lstm"])
    assert_agrees(model, sentences, numbers(trained(sentences)), layers)


def test_in_float64(library, sentences, tmp_path):
    with floats(library, "float64"):
        trained = keras_tagger(library)
        expected = numbers(trained(sentences))
    assert expected.dtype == np.float64
    model = Tagger().double()
    port(model, save(trained, tmp_path / "tagger.ckpt"))
    assert_agrees(model, sentences, expected)


def test_words_that_are_still_listed_have_the_same_tags(trained, sentences, tmp_path):
    path = save(trained, tmp_path / "tagger.keras")
    info = tws.VocabInfo(NEW_WORDS, -1, 0, WORDS)
    model = Tagger(len(NEW_WORDS))
    plan = port(model, path, var_name_to_vocab_info={"words.weight": info})
    assert plan.items[0].rows.copied == len(set(WORDS) & set(NEW_WORDS))
    old_ids, new_ids = in_both_lists(sentences)
    assert_agrees(model, new_ids, numbers(trained(old_ids)))


def in_both_lists(sentences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of words that both lists have, by the rows of each list."""
    both = [word for word in WORDS if word in NEW_WORDS]
    old, new = (np.array([words.index(word) for word in both]) for words in (WORDS, NEW_WORDS))
    chosen = sentences % len(both)
    return old[chosen], new[chosen]


def test_padded_sentences_agree_up_to_their_lengths(library, tmp_path):
    trained = keras_tagger(library, masked=True)
    lengths = np.array([7, 3, 1, 5])
    ids = np.random.default_rng(3).integers(1, len(WORDS), (4, LENGTH))
    real = np.arange(LENGTH) < lengths[:, None]
    ids = np.where(real, ids, 0).astype(np.int32)
    model = Tagger()
    port(model, save(trained, tmp_path / "tagger.keras"))
    expected = torch.from_numpy(numbers(trained(ids)))
    with torch.no_grad():
        mine = model(torch.from_numpy(ids), torch.from_numpy(lengths))
    torch.testing.assert_close(mine[real], expected[real], rtol=1e-5, atol=1e-6)


def test_gradients_of_the_embeddings(library, trained, sentences, tmp_path):
    tf = pytest.importorskip("tensorflow")
    weights = np.random.default_rng(4).normal(size=(LENGTH, TAGS)).astype(np.float32)
    embedding = trained.get_layer("words").output
    both = library.Model(trained.inputs, [embedding, trained.output])
    with tf.GradientTape() as tape:
        embedded, tags = both(sentences, training=False)
        loss = tf.reduce_sum(tags * weights)
    expected = numbers(tape.gradient(loss, embedded))
    model = Tagger()
    port(model, save(trained, tmp_path / "tagger.keras"))
    kept = []
    model.words.register_forward_hook(lambda *call: kept.append(call[-1]) or call[-1].retain_grad())
    (model(torch.from_numpy(sentences)) * torch.from_numpy(weights)).sum().backward()
    torch.testing.assert_close(kept[0].grad, torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
