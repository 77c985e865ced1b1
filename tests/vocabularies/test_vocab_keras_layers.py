"""Keras's lookup layers as objects and in files, against what the layers themselves compute."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import torch

import torch_warmstart as tws

load = tws.Vocabulary.load
KERAS = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])


def text_layer(library, name="genres", **options):
    layer = library.layers.StringLookup(name=name, **options)
    layer.adapt(np.array(["b", "a", "b", "c"]))
    return layer


def check_rows(vocab, layer, entries):
    """Each entry's row is what the layer makes of it."""
    rows = np.array(layer(tf.constant(entries))).tolist()
    assert vocab.rows(entries).tolist() == rows


@KERAS
@pytest.mark.parametrize("oov", [0, 1, 3])
@pytest.mark.parametrize("mask", [None, "", "<m>"])
def test_a_string_lookup(library, oov, mask):
    layer = text_layer(library, num_oov_indices=oov, mask_token=mask)
    vocab = load(layer)
    assert len(vocab) == layer.vocabulary_size()
    check_rows(vocab, layer, ["a", "b", "c"])
    start = int(mask is not None)
    assert vocab.special.get("mask", range(0)) == range(start)
    assert len(vocab.special.get("oov", ())) == oov
    if oov:
        unknown = np.array(layer(tf.constant(["x", "y", "zz"]))).tolist()
        assert all(row in vocab.special["oov"] for row in unknown)
    if mask is not None:
        assert vocab.special["mask"].start == int(layer(tf.constant([mask]))[0])


@KERAS
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("StringLookup", {}),
        ("StringLookup", {"num_oov_indices": 0}),
        ("StringLookup", {"num_oov_indices": 2, "mask_token": ""}),
        ("IntegerLookup", {}),
        ("IntegerLookup", {"mask_token": 0}),
        ("TextVectorization", {}),
        (
            "TextVectorization",
            {"max_tokens": 9, "output_mode": "count", "pad_to_max_tokens": True},
        ),
    ],
)
def test_a_layer_that_was_never_adapted_has_no_vocabulary(library, kind, options):
    layer = getattr(library.layers, kind)(**options)
    with pytest.raises(tws.VocabularyError, match=r"has no entries .*: adapt\(\) it first"):
        load(layer)


@KERAS
def test_an_integer_lookup(library):
    layer = library.layers.IntegerLookup(vocabulary=[5, -7, 1 << 40], mask_token=0)
    vocab = load(layer)
    assert list(vocab.entries) == [0, -1, 5, -7, 1 << 40]
    rows = np.array(layer(tf.constant([5, -7, 1 << 40, 0], tf.int64))).tolist()
    assert vocab.rows([5, -7, 1 << 40, 0]).tolist() == rows


@KERAS
def test_a_text_vectorization(library):
    layer = library.layers.TextVectorization(output_sequence_length=1)
    layer.adapt(["hello big world", "hello"])
    vocab = load(layer)
    assert [e.decode() for e in vocab.entries] == [str(e) for e in layer.get_vocabulary()]
    assert vocab.special == {"mask": range(1), "oov": range(1, 2)}


@KERAS
@pytest.mark.parametrize("layer", ["StringLookup", "TextVectorization"])
def test_entries_are_what_the_layer_s_table_has_whatever_it_reads_them_as(library, layer):
    made = getattr(library.layers, layer)
    options = {"standardize": None} if layer == "TextVectorization" else {}
    lookup = made(vocabulary=["é", "b"], encoding="latin-1", **options)
    assert "Ã©" in lookup.get_vocabulary()
    assert (
        load(lookup).rows(["é"]).tolist() == np.array(lookup(tf.constant(["é"]))).ravel().tolist()
    )


@KERAS
def test_one_column_for_each_entry_may_be_padded(library):
    layer = library.layers.StringLookup(
        vocabulary=["a", "b"], output_mode="multi_hot", max_tokens=6, pad_to_max_tokens=True
    )
    vocab = load(layer)
    assert len(vocab) == 6 == int(layer(tf.constant([["a"]])).shape[-1])
    assert vocab.special == {"oov": range(1), "padding": range(3, 6)}


@KERAS
def test_a_layer_that_turns_indices_into_entries_is_refused(library):
    layer = library.layers.StringLookup(vocabulary=["a"], invert=True)
    with pytest.raises(tws.VocabularyError, match="turns rows into entries"):
        load(layer)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Both Keras's model with three lookup layers, in each form that it can be saved in."""
    folder = tmp_path_factory.mktemp("saved")
    for name, library in (("k3", keras), ("k2", tf_keras)):
        layers = library.layers
        text, ids = library.Input((1,), dtype="string"), library.Input((1,), dtype="int64")
        genres = text_layer(library, num_oov_indices=2, mask_token="")
        numbers = layers.IntegerLookup(name="numbers", vocabulary=[5, 7, 9])
        words = layers.TextVectorization(name="words", output_sequence_length=1)
        words.adapt(["hello big world", "hello"])
        looked_up = [genres(text), numbers(ids), words(text)]
        tables = [
            layers.Flatten()(layers.Embedding(8, 2, name=f"embedding_{at}")(each))
            for at, each in enumerate(looked_up)
        ]
        model = library.Model([text, ids], layers.Concatenate()(tables))
        model.save(str(folder / f"{name}.keras"))
        if name == "k3":
            model.save(str(folder / "k3.h5"))
        else:
            model.save(str(folder / "k2_saved"), save_format="tf")
    return folder


@pytest.mark.parametrize("file", ["k3.keras", "k2.keras", "k2_saved"])
def test_layers_in_an_archive(saved, file):
    genres = load(saved / file, key="genres")
    assert list(genres.entries) == [b"", None, None, b"b", b"c", b"a"]
    assert genres.special == {"mask": range(1), "oov": range(1, 3)}
    assert genres.oov_hash == "farmhash64"
    assert list(load(saved / file, key="numbers").entries) == [-1, 5, 7, 9]
    words = load(saved / file, key="words")
    assert list(words.entries) == [b"", b"[UNK]", b"hello", b"world", b"big"]
    with tws.load_checkpoint(str(saved / file)) as checkpoint:
        assert set(checkpoint.vocabularies()) == {"genres", "numbers", "words"}


def test_a_damaged_saved_model_is_refused_or_read(saved):
    from torch_warmstart.formats.base import MalformedError
    from torch_warmstart.formats.tensorflow.saved_model import table_entries

    whole = (saved / "k2_saved" / "saved_model.pb").read_bytes()
    paths = [f"root.layer_with_weights-{number}" for number in range(3)]
    assert len(table_entries(whole, paths)) > 0
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        flipped = bytearray(whole)
        flipped[at] ^= 0x5A
        for data in (whole[:at], bytes(flipped)):
            with contextlib.suppress(MalformedError):
                table_entries(data, paths)


def test_an_h5_has_what_layers_were_made_with(saved):
    assert list(load(saved / "k3.h5", key="numbers").entries) == [-1, 5, 7, 9]
    with pytest.raises(tws.VocabularyError, match="holds no vocabulary 'genres', but 'numbers'"):
        load(saved / "k3.h5", key="genres")


def test_the_layer_has_to_be_named(saved):
    with pytest.raises(tws.VocabularyError, match=r"vocabularies by name.*key="):
        load(saved / "k3.keras")
    with pytest.raises(tws.VocabularyError, match="Did you mean 'genres'"):
        load(saved / "k3.keras", key="genre")


def test_tables_in_an_object_checkpoint(tmp_path):
    tables = tf.lookup.experimental
    words = tables.MutableHashTable(tf.string, tf.int64, -1)
    words.insert(tf.constant(["x", "y", "z"]), tf.constant([2, 0, 4], tf.int64))
    numbers = tables.DenseHashTable(tf.int64, tf.int64, -1, -1, -2)
    numbers.insert(tf.constant([10, 20], tf.int64), tf.constant([1, 0], tf.int64))
    inverse = tables.MutableHashTable(tf.int64, tf.string, "")
    inverse.insert(tf.constant([1, 0], tf.int64), tf.constant(["q", "p"]))
    counts = tables.MutableHashTable(tf.string, tf.int64, 0)
    counts.insert(tf.constant(["x", "y"]), tf.constant([7, 7], tf.int64))
    root = tf.train.Checkpoint(words=words, numbers=numbers, inverse=inverse, counts=counts)
    path = root.save(str(tmp_path / "c"))
    assert list(load(path, key="words").entries) == [b"y", None, b"x", None, b"z"]
    assert list(load(path, key="numbers").entries) == [20, 10]
    assert list(load(path, key="inverse").entries) == [b"p", b"q"]
    with tws.load_checkpoint(path) as checkpoint:
        assert set(checkpoint.vocabularies()) == {"words", "numbers", "inverse"}


def start(model, source, info):
    settings = tws.WarmStartSettings(source, var_name_to_vocab_info={"weight": info})
    return tws.warm_start(model, settings)["weight"].rows


def table(rows):
    return {"weight": torch.arange(float(rows)).reshape(rows, 1) + 10}


@KERAS
def test_mask_and_oov_rows_go_with_the_layers(library):
    old = text_layer(library, num_oov_indices=2, mask_token="")
    new = library.layers.StringLookup(
        vocabulary=["c", "x", "a"], num_oov_indices=2, mask_token="none", oov_token="?"
    )
    model = torch.nn.Embedding(6, 1)
    rows = start(model, table(6), tws.VocabInfo(new, old_vocab=old))
    assert model.weight.flatten().tolist() == [10.0, 11.0, 12.0, 14.0, 0.0, 15.0]
    assert (rows.copied, rows.oov_copied, rows.initialised, rows.dropped) == (3, 2, 1, 1)
    assert rows.copied + rows.oov_copied + rows.initialised == rows.total == 6


@KERAS
def test_oov_rows_of_another_count_or_hash_begin_anew(library):
    old = text_layer(library, num_oov_indices=2)
    other_count = library.layers.StringLookup(vocabulary=["a"], num_oov_indices=3)
    rows = start(torch.nn.Embedding(4, 1), table(5), tws.VocabInfo(other_count, old_vocab=old))
    assert (rows.oov_copied, rows.oov_initialised, rows.copied) == (0, 3, 1)
    by_value = library.layers.IntegerLookup(vocabulary=[1], num_oov_indices=2)
    same = library.layers.IntegerLookup(vocabulary=[1, 3], num_oov_indices=2)
    rows = start(torch.nn.Embedding(3, 1), table(4), tws.VocabInfo(by_value, old_vocab=same))
    assert (rows.oov_copied, rows.copied) == (2, 1)
    if library is keras:
        hashed = keras.layers.IntegerLookup(
            vocabulary=[1, 3], num_oov_indices=2, oov_method="farmhash"
        )
        rows = start(torch.nn.Embedding(3, 1), table(4), tws.VocabInfo(by_value, old_vocab=hashed))
        assert (rows.oov_copied, rows.copied) == (0, 1)


def test_zero_means_that_no_oov_row_is_copied():
    layers = keras.layers
    old, new = layers.StringLookup(vocabulary=["a", "b"]), layers.StringLookup(vocabulary=["b"])
    model = torch.nn.Embedding(2, 1)
    info = tws.VocabInfo(new, old_vocab=old, old_num_oov_buckets=0)
    rows = start(model, table(3), info)
    assert (rows.oov_copied, rows.oov_initialised, rows.copied) == (0, 1, 1)
    assert model.weight.flatten().tolist() == [0.0, 12.0]


def test_buckets_that_contradict_the_layer_are_refused():
    layer = keras.layers.StringLookup(vocabulary=["a"])
    info = tws.VocabInfo(layer, num_oov_buckets=2, old_vocab=layer)
    with pytest.raises(tws.PlanError, match="has 1 OOV row of its own"):
        start(torch.nn.Embedding(2, 1), table(2), info)


def test_the_checkpoints_own_vocabulary(saved):
    path, name = str(saved / "k3.keras"), "embedding_0"
    new = ["", "[UNK]", "[UNK]", "a", "new", "c"]
    model = torch.nn.ModuleDict({name: torch.nn.Embedding(6, 2)})

    def begin(old):
        info = {f"{name}.weight": tws.VocabInfo(new, old_vocab=old)}
        settings = tws.WarmStartSettings(path, var_name_to_vocab_info=info)
        return tws.warm_start(model, settings)[f"{name}.weight"].rows

    with pytest.raises(tws.PlanError, match=r"Name it: old_vocab=FROM_CHECKPOINT\["):
        begin(tws.FROM_CHECKPOINT)
    with pytest.raises(tws.PlanError, match="holds no vocabulary 'genre'.*Did you mean 'genres'"):
        begin(tws.FROM_CHECKPOINT["genre"])
    rows = begin(tws.FROM_CHECKPOINT["genres"])
    assert (rows.copied, rows.oov_copied, rows.initialised) == (3, 0, 1)  # a list has no hash
    info = tws.VocabInfo(["a"])
    with pytest.raises(tws.PlanError, match=r"old_vocab is not given.*Give it: old_vocab="):
        start(torch.nn.Embedding(1, 1), table(1), info)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"num_oov_indices": 2}, {}, "2 OOV rows are left behind, as the new vocabulary has 1 OOV"),
        ({}, {"num_oov_indices": 3}, "1 OOV row is left behind, as the new vocabulary has 3 OOV"),
    ],
)
def test_oov_rows_that_are_left_behind_are_said(old, new, words):
    keras = pytest.importorskip("keras")
    before = keras.layers.StringLookup(vocabulary=["a", "b"], **old)
    after = keras.layers.StringLookup(vocabulary=["b", "c"], **new)
    table = torch.ones(len(before.get_vocabulary()), 2)
    model = torch.nn.Embedding(len(after.get_vocabulary()), 2)

    def codes(**more):
        info = tws.VocabInfo(after, old_vocab=before, **more)
        settings = tws.WarmStartSettings({"weight": table}, var_name_to_vocab_info={"weight": info})
        return [(note.code, note.text) for note in tws.plan_warm_start(model, settings).notes]

    ((code, text),) = codes()
    assert code == "oov-rows-left-behind"
    assert words in text
    assert codes(old_num_oov_buckets=0) == []
