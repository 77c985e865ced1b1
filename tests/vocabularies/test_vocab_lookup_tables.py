"""Lookup tables of TensorFlow's in checkpoints: of a graph and of objects, dense and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_warmstart as tws

tf: Any = pytest.importorskip("tensorflow")
ROWS = np.arange(9.0, dtype=np.float32).reshape(3, 3)


def dense_table() -> Any:
    tables = tf.lookup.experimental
    return tables.DenseHashTable(tf.int64, tf.float32, tf.zeros([3]), -1, -2, name="dense")


@pytest.fixture(scope="module")
def of_a_graph(tmp_path_factory: Any) -> str:
    """As `tf.compat.v1.train.Saver` saves tables, by their names."""
    path = str(tmp_path_factory.mktemp("graph") / "model")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        words = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1, name="words")
        counts = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0, name="counts")
        filled = [
            words.insert(tf.constant(["x", "y", "z"]), tf.constant([2, 0, 4], tf.int64)),
            counts.insert(tf.constant(["x", "y"]), tf.constant([7, 7], tf.int64)),
            dense_table().insert(tf.constant([5, 1 << 62, 7], tf.int64), tf.constant(ROWS)),
        ]
        v1.get_variable("w", initializer=tf.zeros([2]))
        session.run(v1.global_variables_initializer())
        session.run(filled)
        return str(v1.train.Saver().save(session, path))


def test_a_table_of_a_graph_is_a_vocabulary_by_its_name(of_a_graph: str) -> None:
    found = tws.Vocabulary.load(of_a_graph, key="words")
    assert list(found.entries) == [b"y", None, b"x", None, b"z"]
    with tws.load_checkpoint(of_a_graph) as checkpoint:
        assert set(checkpoint.vocabularies()) == {"words"}
    with pytest.raises(tws.VocabularyError, match=r"by name: 'words'. Say which: .*key='words'"):
        tws.Vocabulary.load(of_a_graph)


def test_values_of_a_table_of_rows_are_not_read_to_look_for_vocabularies(
    of_a_graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tws.load_checkpoint(of_a_graph) as checkpoint:
        read, get = [], type(checkpoint).get_tensor

        def noted(self: Any, key: str, *rest: Any, **more: Any) -> Any:
            read.append(key)
            return get(self, key, *rest, **more)

        monkeypatch.setattr(type(checkpoint), "get_tensor", noted)
        checkpoint.vocabularies()
    assert "words-values" in read
    assert not any(key.startswith("dense") for key in read)


def start(url: str) -> torch.Tensor:
    model = torch.nn.Embedding(4, 3)
    settings = tws.WarmStartSettings(
        url, None, {"weight": tws.VocabInfo([7, 1 << 62, 9, 5])}, {"weight": "dense"}
    )
    tws.warm_start(model, settings)
    return model.weight.detach()


def test_rows_of_a_dense_table_are_found_by_their_ids(of_a_graph: str, tmp_path: Path) -> None:
    wanted = torch.tensor(ROWS)[[2, 1, 0, 0]]
    wanted[2] = 0
    assert torch.equal(start(of_a_graph), wanted)
    table = dense_table()
    table.insert(
        tf.constant([5, 1 << 62, 7, 8], tf.int64), tf.constant(np.vstack([ROWS, ROWS[:1]]))
    )
    table.erase(tf.constant([8], tf.int64))
    assert torch.equal(start(tf.train.Checkpoint(dense=table).write(str(tmp_path / "c"))), wanted)


class Root(tf.Module):
    """A table of each kind, and what Keras 3 makes of entries."""

    def __init__(self) -> None:
        keras = pytest.importorskip("keras")
        super().__init__()
        self.words = self.table(["x", "y", "z"], [2, 0, 4])
        self.numbers = self.table([7, 1 << 40], [1, 0])
        self.counts = self.table(["x", "y"], [7, 7])
        self.inverse = self.table([0, 1], ["p", "q"])
        self.genres = keras.layers.StringLookup(vocabulary=["a", "é"], num_oov_indices=2)
        self.text = keras.layers.TextVectorization(vocabulary=["a", "é"])

    @staticmethod
    def table(keys: list[Any], values: list[Any]) -> Any:
        kind = tf.string if isinstance(values[0], str) else tf.int64
        made = tf.lookup.KeyValueTensorInitializer(
            keys, values, tf.string if isinstance(keys[0], str) else tf.int64, kind
        )
        return tf.lookup.StaticHashTable(made, "" if kind == tf.string else -1)


def test_tables_that_constants_fill_are_vocabularies_by_their_places(tmp_path: Path) -> None:
    tf.saved_model.save(Root(), str(tmp_path))
    entries = {
        "words": [b"y", None, b"x", None, b"z"],
        "numbers": [1 << 40, 7],
        "inverse": [b"p", b"q"],
        "genres": [None, None, b"a", "é".encode()],
        "text": [None, None, b"a", "é".encode()],
    }
    for name, expected in entries.items():
        assert list(tws.Vocabulary.load(tmp_path, key=name).entries) == expected, name
    with pytest.raises(tws.VocabularyError, match="holds no vocabulary 'counts', but 'words'"):
        tws.Vocabulary.load(tmp_path, key="counts")


def test_what_keras_3_exports_holds_the_entries_of_its_layers(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    given = keras.Input((1,), dtype="string")
    rows = keras.layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=2)(given)
    keras.Model(given, keras.layers.Embedding(4, 3)(rows)).export(str(tmp_path), verbose=False)
    with pytest.raises(tws.VocabularyError, match=r"by name: '.*'. Say which") as told:
        tws.Vocabulary.load(tmp_path)
    name = str(told.value).split("'")[1]
    assert list(tws.Vocabulary.load(tmp_path, key=name).entries) == [None, None, b"a", b"b"]


def test_a_damaged_graph_is_our_error(tmp_path: Path) -> None:
    tf.saved_model.save(Root(), str(tmp_path))
    file = tmp_path / "saved_model.pb"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for size in rng.integers(1, len(whole), 12).tolist():
        file.write_bytes(whole[:size])
        with pytest.raises(tws.WarmStartError):
            tws.Vocabulary.load(tmp_path, key="words")


@pytest.mark.parametrize(
    ("dtype", "entries", "empty", "deleted"),
    [(tf.int64, [50, 40, 30], -1, -2), (tf.string, ["b", "a", "c"], "<E>", "<D>")],
    ids=["ids", "texts"],
)
def test_a_dense_table_of_numbers_says_the_rows_and_not_its_buckets(
    tmp_path: Path, dtype: Any, entries: list[Any], empty: Any, deleted: Any
) -> None:
    """It has more buckets than entries, and the model more rows than either."""
    rows = np.arange(200.0, dtype=np.float32).reshape(100, 2)
    objects = tf.Module()
    objects.words = tf.lookup.experimental.DenseHashTable(
        dtype, tf.int64, -1, empty, deleted, initial_num_buckets=64
    )
    objects.words.insert(tf.constant(entries, dtype), tf.range(3, dtype=tf.int64))
    objects.embedding = tf.Variable(rows)
    path = tf.train.Checkpoint(m=objects).save(str(tmp_path / "model"))
    with tws.load_checkpoint(path) as checkpoint:
        assert checkpoint.tables() == {}
    info = tws.VocabInfo(entries[::-1], old_vocab=tws.FROM_CHECKPOINT["m/words"])
    model = torch.nn.Embedding(3, 2)
    names = {"weight": "m/embedding"}
    tws.warm_start(model, tws.WarmStartSettings(path, ".*", {"weight": info}, names))
    assert torch.equal(model.weight, torch.from_numpy(rows[[2, 1, 0]]))


@pytest.mark.parametrize(
    ("keys", "values", "entries"),
    [
        ([0, 1, 2], [900, 50, 70], None),  # rows with an id each, by all appearances
        ([0, 1, 2], [1, 2, 3], None),  # or ids whose rows have one in front
        ([0, 1, 2], [2, 0, 1], None),
        ([2, 0, 1], [0, 2, 1], [2, 1, 0]),  # the same either way
        ([5, 0, 1], [0, 2, 1], [5, 1, 0]),
        ([1, 2, 3], [90, 50, 70], None),  # rows behind an OOV row
        ([2, 3, 4], [9, 5, 7], None),  # and a mask
        ([1, 2, 3], [2, 0, 1], [2, 3, 1]),
        ([1, 2, 3], [2, 4, 3], [None, None, 1, 3, 2]),
        ([7, 8, 9], [5, 0, 2], [8, None, 9, None, None, 7]),  # no rows begin so late
    ],
)
def test_numbers_of_numbers_are_a_vocabulary_where_only_one_side_can_be_rows(
    tmp_path: Path, keys: list[int], values: list[int], entries: list[int] | None
) -> None:
    objects = tf.Module()
    objects.words = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    objects.words.insert(tf.constant(keys, tf.int64), tf.constant(values, tf.int64))
    path = tf.train.Checkpoint(m=objects).save(str(tmp_path / "model"))
    with tws.load_checkpoint(path) as checkpoint:
        found = {name: list(v.entries) for name, v in checkpoint.vocabularies().items()}
    assert found.get("m/words") == entries


def test_of_a_layer_of_keras_the_ids_may_count_up(tmp_path: Path) -> None:
    keras: Any = pytest.importorskip("tf_keras")
    ids = keras.layers.IntegerLookup(name="ids")
    ids.adapt(tf.constant([[0], [0], [1]], tf.int64))
    keras.Sequential([keras.Input((1,), dtype=tf.int64), ids]).save(
        tmp_path / "m", save_format="tf"
    )
    with tws.load_checkpoint(tmp_path / "m") as checkpoint:
        assert list(checkpoint.vocabularies()["ids"].entries) == [-1, 0, 1]
