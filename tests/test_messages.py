"""What users read is part of the interface: errors, plans and reports as text."""

from __future__ import annotations

import re

import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, VocabInfo, WarmStartSettings


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(3, 2)
        self.layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
        self.norm = nn.BatchNorm1d(2)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A TensorFlow checkpoint called model.ckpt-7 in the current directory."""
    monkeypatch.chdir(tmp_path)
    shapes = {"words/embeddings": (4, 2), "global_step": ()}
    for n in range(3):
        shapes |= {f"layers/{n}/kernel": (2, 2), f"layers/{n}/bias": (2,)}
    for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
        shapes[f"norm/{leaf}"] = (2,)
    entries = [
        BundleEntry(key, DType.FLOAT, shape, torch.ones(shape).numpy().tobytes())
        for key, shape in shapes.items()
    ]
    write_bundle("model.ckpt-7", entries)
    return "model.ckpt-7"


def _vocab(**changes):
    fields = {
        "new_vocab": ["c", "x", "a"],
        "new_vocab_size": -1,
        "num_oov_buckets": 0,
        "old_vocab": ["a", "b", "c", "d"],
    }
    return VocabInfo(**{**fields, **changes})


def _error(model, settings):
    with pytest.raises(PlanError) as caught:
        tws.plan_warm_start(model, settings)
    return str(caught.value)


def test_a_plan_is_a_table(checkpoint):
    settings = WarmStartSettings(checkpoint, ".*", {"words.weight": _vocab()})
    plan = tws.plan_warm_start(Net(), settings)
    assert (
        str(plan)
        == """\
Warm start from model.ckpt-7 (TensorFlow V2 checkpoint)

variable               from                   shape             change     decision   why
words.weight           words/embeddings       [4, 2] -> [3, 2]             remapped   TensorFlow's name
    rows: 2 copied (all moved), 1 initialised; 2 dropped
layers.{0...2}.weight  layers/{0...2}/kernel  [2, 2]            transpose  converted  TensorFlow's name
layers.{0...2}.bias    layers/{0...2}/bias    [2]                          copied
norm.weight            norm/gamma             [2]                          renamed    TensorFlow's name
norm.bias              norm/beta              [2]                          renamed    TensorFlow's name
Not selected, left as they are: 3 variables: norm.running_mean, norm.running_var, norm.num_batches_tracked

12 variables: 1 remapped, 3 converted, 2 renamed, 3 copied, 3 kept; 0.1 KiB to read
Warning: 2 buffers that the checkpoint has (such as 'norm.running_mean') stay as they are, because a\
 pattern given as a str selects parameters only. To take them too, write a list: \
vars_to_warm_start=['.*'].
Compare: norm: eps=1e-05 and momentum=0.1 are torch's default; Keras has epsilon=0.001 and \
momentum=0.99, 0.01 in torch. If the original has Keras's, make it nn.BatchNorm1d(..., eps=0.001, \
momentum=0.01)."""
    )


def test_a_report_is_a_table(checkpoint):
    vocab = _vocab(num_oov_buckets=1, new_vocab=["c", "a"])
    settings = WarmStartSettings(checkpoint, ["words", "norm"], {"words.weight": vocab})
    report = tws.warm_start(Net(), settings)
    assert (
        re.sub(r"in [\d.]+ s", "in 0.00 s", str(report))
        == """\
Warm-started from model.ckpt-7 in 0.00 s

variable                  from                  state     why
words.weight              words/embeddings      remapped  TensorFlow's name
    rows: 2 copied (all moved), 1 oov initialised; 2 dropped
norm.weight               norm/gamma            renamed   TensorFlow's name
norm.bias                 norm/beta             renamed   TensorFlow's name
norm.running_mean         norm/moving_mean      renamed   TensorFlow's name
norm.running_var          norm/moving_variance  renamed   TensorFlow's name
norm.num_batches_tracked                        kept      TensorFlow has no counterpart
Not selected, left as they are: 6 variables: layers.{0...2}.weight, layers.{0...2}.bias

12 variables: 1 remapped, 4 renamed, 7 kept; 3 remapped rows: 2 copied, 1 initialised; 7 keys of \
the checkpoint were not used
Compare: norm: eps=1e-05 and momentum=0.1 are torch's default; Keras has epsilon=0.001 and \
momentum=0.99, 0.01 in torch. If the original has Keras's, make it nn.BatchNorm1d(..., eps=0.001, \
momentum=0.01)."""
    )


def test_all_problems_come_in_one_error(checkpoint):
    model = Net()
    model.extra = nn.Linear(2, 5)
    model.layers[1] = nn.Linear(2, 4)
    settings = WarmStartSettings(
        checkpoint,
        ["words", "layer", "extra", "nrom"],
        {"word.weight": _vocab(), "words/weight": _vocab(new_vocab=["a", "a", "b"])},
        {"layers.0.weight": "layers/0/kernl", "norm.weight": "norm/gamma"},
    )
    assert (
        _error(model, settings)
        == """\
The warm start from model.ckpt-7 has 9 problems; nothing was changed:
  1. vars_to_warm_start: 'nrom' matches none of the model's 14 global variables (a pattern is \
matched from the start of a name). Nearest: 'norm.bias', 'norm.weight', 'norm.running_var'.
  2. var_name_to_vocab_info: the model has no variable 'word.weight'. Did you mean 'words.weight'\
 or 'norm.weight' or 'extra.weight'?
  3. var_name_to_prev_var_name: 'norm.weight' is not used, because vars_to_warm_start does not \
select it.
  4. words.weight: the list of length 3 has an entry twice: 'a' (entry 1) and 'a' (entry 2). Two \
rows of the new variable would claim the same old row.
  5. layers.0.weight: var_name_to_prev_var_name asks for 'layers/0/kernl', which model.ckpt-7 \
does not have. Did you mean 'layers/0/kernel' or 'layers/2/kernel' or 'layers/1/kernel'?
  6. layers.1.weight has shape [4, 2], but 'layers/1/kernel' in the checkpoint has [2, 2], to be \
changed by 'transpose'.
  7. layers.1.bias has shape [4], but 'layers/1/bias' in the checkpoint has [2].
  8. extra.weight is not in the checkpoint. The same of extra.bias.
If a vocabulary behind axis 0 has changed, describe the change by a VocabInfo in \
var_name_to_vocab_info.
A variable that does not fit: leave it out of vars_to_warm_start, take its rows by position with \
a ClipOrPad in var_name_to_vocab_info, or keep what the model has with on_mismatch='keep'.
A variable that is not in the checkpoint: name its key in var_name_to_prev_var_name \
(suggest_names() proposes keys), leave it out of vars_to_warm_start, or keep what the model has with on_missing='keep'."""
    )


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        (
            {"new_vocab_size": 2},
            "words.weight has size 3 along axis 0, but its VocabInfo describes 2 (axis 1 has that "
            "size): 2 new entries and 0 OOV rows. If the further rows are padding behind the "
            "others, pass Vocabulary.load(...).padded_to(3); if they stand in front (a mask, OOV "
            "rows), pass the layer that has them, or put them in front of new_vocab.",
        ),
        (
            {"num_oov_buckets": 1},
            "words.weight has size 3 along axis 0, but its VocabInfo describes 4: 3 new entries and "
            "1 OOV row.",
        ),
        (
            {"new_vocab": ["c", "x", "g"], "old_vocab": list("abcdefg")},
            "words.weight: the old vocabulary's entries reach to row 6, but 'words/embeddings' has "
            "only 4 rows along axis 0. Is old_vocab the vocabulary it was trained with, and "
            "old_vocab_size right?",
        ),
        (
            {"new_vocab": ["c", "x"], "num_oov_buckets": 1, "old_num_oov_buckets": 1},
            "words.weight: 4 old entries and 1 old OOV row make 5 rows, but 'words/embeddings' has "
            "4 along axis 0: where its OOV rows are is unclear.",
        ),
        (
            {
                "new_vocab": ["c", "x"],
                "num_oov_buckets": 1,
                "old_num_oov_buckets": 1,
                "old_vocab": ["a", "c"],
            },
            "words.weight: 2 old entries and 1 old OOV row make 3 rows, but 'words/embeddings' has "
            "4 along axis 0: where its OOV rows are is unclear.",
        ),
        (
            {"axis": 2},
            "words.weight: its VocabInfo is for axis 2, but its shape is [3, 2].",
        ),
        (
            {"axis": 1, "new_vocab": ["a", "b"]},
            "words.weight: apart from axis 1, which the vocabulary is for, its shape [3, 2] must "
            "equal that of 'words/embeddings', [4, 2].",
        ),
        (
            {"old_vocab": ["a", "b", "a"]},
            "words.weight: the list of length 3 has an entry twice, so its old row is ambiguous: "
            "'a' (entry 1) and 'a' (entry 3).",
        ),
        (
            {"new_vocab_size": 9},
            "words.weight: new_vocab_size=9, but the list of length 3 has only 3 entries. If the "
            "further rows are padding, pass Vocabulary.load(...).padded_to(9).",
        ),
        (
            {"old_vocab": "nowhere.txt"},
            "words.weight: Vocabulary file nowhere.txt cannot be read: [Errno 2] No such file or "
            "directory: 'nowhere.txt'",
        ),
    ],
)
def test_vocabularies_that_do_not_fit(checkpoint, vocab, message):
    settings = WarmStartSettings(checkpoint, None, {"words.weight": _vocab(**vocab)})
    assert f"  1. {message}" in _error(Net(), settings)


def test_two_keys_for_one_variable_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ones = torch.ones(2, 2).numpy().tobytes()
    write_bundle("c", [BundleEntry(k, DType.FLOAT, (2, 2), ones) for k in ("0/kernel", "0/weight")])
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    assert _error(model, "c") == (
        "The warm start from c has 1 problem; nothing was changed:\n"
        "  1. 0.weight is found under different keys: '0/weight' and '0/kernel'. Say which one is "
        "meant: var_name_to_prev_var_name={'0.weight': '0/weight'}."
    )


def test_integers_are_not_made_of_floats():
    model = nn.Module()
    model.register_buffer("step", torch.zeros((), dtype=torch.int64))
    text = _error(model, WarmStartSettings({"step": torch.tensor(1.5)}, ["step"]))
    assert "step is torch.int64, but 'step' in the checkpoint is torch.float32: only" in text


def test_a_model_without_shapes_is_refused_with_the_way_out():
    assert "weight has no shape yet" in _error(nn.LazyLinear(2), nn.Linear(2, 2))


def test_an_unknown_layout_is_refused(checkpoint):
    settings = WarmStartSettings(
        checkpoint, "layers.0.weight", var_name_to_layout={"layers.0.weight": "turn"}
    )
    assert "layers.0.weight: no layout is called 'turn'; there are identity, transpose" in _error(
        Net(), settings
    )


def test_settings_for_one_variable_by_two_names_are_refused():
    model = Net()
    settings = WarmStartSettings(Net(), ".*", None, {"norm.weight": "a", "norm/weight": "b"})
    assert "'norm.weight' and 'norm/weight' are the same variable." in _error(model, settings)


def test_a_tensor_that_is_not_there_is_answered_with_near_names(checkpoint):
    with tws.load_checkpoint(checkpoint) as opened, pytest.raises(tws.MissingTensorError) as caught:
        opened.get_tensor("norm/gama")
    assert str(caught.value) == (
        "model.ckpt-7 has no tensor 'norm/gama'. Did you mean 'norm/gamma' or 'norm/beta' or "
        "'norm/moving_mean'? list_variables() shows all."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Linear(1, 1), 3), "A checkpoint is a path or URL, a state_dict, .* not a int"),
        (({}, "x"), r"The model must be a torch.nn.Module, not a dict"),
    ],
)
def test_a_wrong_kind_of_argument_is_named(arguments, message):
    with pytest.raises(tws.SettingsError, match=message):
        tws.warm_start(*arguments)


def test_no_checkpoint_says_what_is_there(checkpoint):
    with pytest.raises(tws.CheckpointNotFoundError) as caught:
        tws.warm_start(Net(), "model.ckpt-8")
    assert str(caught.value) == (
        "There is no checkpoint at model.ckpt-8: no such file or directory, and no "
        "model.ckpt-8.index. . holds model.ckpt-7.data-00000-of-00001, model.ckpt-7.index. "
        "Checkpoints there: './model.ckpt-7'; pass one of them."
    )
