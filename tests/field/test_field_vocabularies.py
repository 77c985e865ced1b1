"""A vocabulary that was shuffled is noticed by the lookup layer that the file has."""

from __future__ import annotations

import pytest
from torch import nn

import torch_warmstart as tws

keras = pytest.importorskip("keras")
pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    layers = keras.layers
    text, ids = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="int64")
    genres = layers.StringLookup(name="genres", vocabulary=["a", "b", "c"])(text)
    numbers = layers.IntegerLookup(name="numbers", vocabulary=[5, 7])(ids)
    outputs = layers.Add()(
        [layers.Embedding(4, 2, name="table")(genres), layers.Embedding(4, 2, name="o")(numbers)]
    )
    path = str(tmp_path_factory.mktemp("keras") / "m.keras")
    keras.Model([text, ids], outputs).save(path)
    return path


def _codes(checkpoint, entries, **settings):
    model = nn.ModuleDict({"table": nn.Embedding(4, 2)})
    if entries is not None:
        model["table"].vocabulary = tws.Vocabulary.load(entries)
    plan = tws.plan_warm_start(model, tws.WarmStartSettings(checkpoint, **settings))
    return [(note.code, note.severity) for note in plan.notes if note.code == "vocabulary-shuffled"]


@pytest.mark.parametrize(
    ("entries", "is_told"),
    [
        (["?", "b", "a", "c"], True),
        (["a", "b", "c", "d"], True),  # without the row in front
        (["?", "a", "b", "c"], False),
        (["?", "x", "y", "z"], False),  # of something else
        ([1, 2, 3, 4], False),
        (None, False),
    ],
)
def test_the_modules_vocabulary_in_other_rows_is_heard(checkpoint, entries, is_told):
    assert _codes(checkpoint, entries) == [("vocabulary-shuffled", "warning")] * is_told


def test_once_it_is_said_nothing_is_left_to_tell(checkpoint):
    entries = ["?", "b", "a", "c"]
    old = tws.FROM_CHECKPOINT["genres"]
    info = {"table.weight": tws.VocabInfo(entries, old_vocab=old)}
    assert not _codes(checkpoint, entries, var_name_to_vocab_info=info)
