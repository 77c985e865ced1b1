"""Vocabularies beside a checkpoint: written whole, found by key, and checked."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.storage import LOCAL
from torch_warmstart.vocabularies import sidecar_vocabularies

OLD, NEW = ["a", "b", "c", "d"], ["d", "x", "b"]


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "m.pt"
    weight = torch.arange(8.0).view(4, 2)
    torch.save({"tok.weight": weight, "w": torch.ones(2, 2)}, path)
    return str(path)


def model_of(count, vocabulary=None):
    model = nn.Module()
    model.tok = nn.Embedding(count, 2)
    if vocabulary is not None:
        model.tok.vocabulary = tws.Vocabulary.load(vocabulary)
    return model


def start(checkpoint, model, info=None):
    infos = {"tok.weight": info} if info is not None else None
    return tws.warm_start(model, tws.WarmStartSettings(checkpoint, ".*", infos))


def test_from_checkpoint_finds_what_was_saved_for_the_tensor(checkpoint):
    vocab = tws.update_vocabulary(OLD, {"a": 3}, today=20_000)
    path = tws.save_vocabularies(checkpoint, {"tok.weight": vocab, "w": ["p", "q"]})
    assert path == checkpoint + ".warmstart.json"
    model = model_of(3)
    start(checkpoint, model, tws.VocabInfo(NEW))
    assert model.tok.weight.tolist() == [[6, 7], [0, 0], [2, 3]]
    found = sidecar_vocabularies(checkpoint, LOCAL)
    assert found["tok.weight"].usage.counts.tolist() == [3, 0, 0, 0]
    assert found.fingerprint("tok.weight") == vocab.fingerprint
    start(checkpoint, model, tws.VocabInfo(NEW, old_vocab=tws.FROM_CHECKPOINT["tok.weight"]))
    with pytest.raises(tws.PlanError, match=r"the vocabularies of 'tok.weight', 'w'"):
        start(checkpoint, model, tws.VocabInfo(NEW, old_vocab=tws.FROM_CHECKPOINT["tok"]))


def test_slots_follow_the_vocabulary_of_their_parameter(tmp_path):
    model = model_of(4)
    optimizer = torch.optim.Adagrad(model.parameters())
    optimizer.state[model.tok.weight]["sum"].copy_(torch.arange(8.0).view(4, 2))
    path = tmp_path / "m.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    tws.save_vocabularies(path, {"tok.weight": OLD})
    later = model_of(3)
    of_later = torch.optim.Adagrad(later.parameters(), initial_accumulator_value=0.25)
    settings = tws.WarmStartSettings(str(path), ".*", {"tok.weight": tws.VocabInfo(NEW)})
    tws.warm_start(later, settings, optimizer=of_later)
    assert of_later.state[later.tok.weight]["sum"].tolist() == [[6, 7], [0.25, 0.25], [2, 3]]


def test_what_was_saved_before_is_replaced_whole(checkpoint, monkeypatch):
    folder = os.path.dirname(checkpoint)
    tws.save_vocabularies(checkpoint, {"tok.weight": OLD})
    tws.save_vocabularies(checkpoint, {"tok.weight": OLD[::-1], "w": OLD[:2]})
    assert len(os.listdir(folder)) == 4  # nothing of the first is left
    before = {name: os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)}

    def fail(*_):
        raise OSError("no room")

    monkeypatch.setattr("torch_warmstart.vocabularies.sidecar._replace_text", fail)
    with pytest.raises(tws.SettingsError, match="no room"):
        tws.save_vocabularies(checkpoint, {"tok.weight": OLD})
    monkeypatch.undo()
    assert (
        before.items()
        <= {n: os.path.getsize(os.path.join(folder, n)) for n in os.listdir(folder)}.items()
    )
    assert list(sidecar_vocabularies(checkpoint, LOCAL)["tok.weight"].entries) == [
        b"d",
        b"c",
        b"b",
        b"a",
    ]


def test_what_cannot_be_saved_is_said(checkpoint):
    with pytest.raises(tws.MissingTensorError, match="tok.weight"):
        tws.save_vocabularies(checkpoint, {"tok.weigth": OLD})
    with pytest.raises(tws.SettingsError, match=r"5 rows, but 'tok.weight' .* \[4, 2\]"):
        tws.save_vocabularies(checkpoint, {"tok.weight": [*OLD, "e"]})
    in_memory = tws.load_checkpoint({"tok.weight": torch.ones(4, 2)})
    with pytest.raises(tws.SettingsError, match="on this machine"):
        tws.save_vocabularies(in_memory, {"tok.weight": OLD})


def test_another_old_vocabulary_than_the_saved_one_is_a_warning(checkpoint):
    tws.save_vocabularies(checkpoint, {"tok.weight": OLD})
    shuffled = ["b", "a", "c", "d"]
    with pytest.warns(tws.WarmStartWarning, match="2 entries of .* are elsewhere"):
        start(checkpoint, model_of(3), tws.VocabInfo(NEW, old_vocab=shuffled))
    plan = tws.plan_warm_start(
        model_of(3),
        tws.WarmStartSettings(checkpoint, ".*", {"tok.weight": tws.VocabInfo(NEW, old_vocab=OLD)}),
    )
    assert "old-vocab-differs" not in {note.code for note in plan.notes}


def test_a_shuffled_vocabulary_of_equal_size_is_refused(checkpoint):
    tws.save_vocabularies(checkpoint, {"tok.weight": OLD})
    start(checkpoint, model_of(4, OLD))
    start(checkpoint, model_of(4))
    with pytest.raises(tws.PlanError, match="2 entries of its module's vocabulary") as told:
        start(checkpoint, model_of(4, ["a", "c", "b", "d"]))
    assert told.value.problems[0].code == "vocabulary-shuffled"


def test_a_damaged_sidecar_is_our_error_or_a_warning(checkpoint):
    path = tws.save_vocabularies(checkpoint, {"tok.weight": OLD})
    data = next(
        os.path.join(os.path.dirname(checkpoint), name)
        for name in os.listdir(os.path.dirname(checkpoint))
        if name.endswith(".vocab")
    )
    draw = random.Random(2)
    for file in (path, data):
        whole = Path(file).read_bytes()
        for _ in range(60):
            raw = bytearray(whole)
            raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
            with open(file, "wb") as out:
                out.write(raw[: draw.randint(0, len(raw))] if draw.random() < 0.3 else raw)
            try:
                found = sidecar_vocabularies(checkpoint, LOCAL)
                for key in found:
                    assert list(found[key].entries) == [b"a", b"b", b"c", b"d"]
            except tws.VocabularyError:
                pass
        with open(file, "wb") as out:
            out.write(whole)
    with open(path, "w") as out:
        out.write("{")
    with pytest.warns(tws.WarmStartWarning, match="cannot be looked at"):
        start(checkpoint, model_of(4))
    with pytest.raises(tws.PlanError, match="is damaged"):
        start(checkpoint, model_of(3), tws.VocabInfo(NEW))


@pytest.mark.parametrize("name", ["../m.vocab", "/etc/passwd", "http://h/x", "other.vocab"])
def test_a_sidecar_names_only_files_that_are_ours(checkpoint, name):
    path = tws.save_vocabularies(checkpoint, {"tok.weight": OLD})
    about = json.loads(Path(path).read_text())
    about["vocabularies"]["tok.weight"]["file"] = name
    with open(path, "w") as out:
        json.dump(about, out)
    with pytest.raises(tws.PlanError, match="not called as we call them"):
        start(checkpoint, model_of(3), tws.VocabInfo(NEW))
