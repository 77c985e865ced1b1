"""The pipeline from settings to a filled model: names, layouts, dtypes, vocabularies.

Sources here are state dicts and bundles written by `bundle_writer`; TensorFlow is the oracle in
test_against_tensorflow.py.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from warm_start_helpers import Tagger, vocab

import torch_warmstart as tws
from torch_warmstart import PlanError, VocabInfo, WarmStartSettings

# -- whole tensors ---------------------------------------------------------------------------------


def test_a_state_dict_fills_the_model_in_place(device):
    old, new = Tagger().to(device), Tagger().to(device)
    ids = [id(p) for p in new.parameters()]
    report = tws.warm_start(new, old.state_dict())
    assert torch.equal(new.out.weight, old.out.weight)
    assert torch.equal(new.embed.weight, old.embed.weight)
    assert ids == [id(p) for p in new.parameters()]
    assert all(p.is_leaf and p.requires_grad for p in new.parameters())
    assert report.count("copied") == 5


def test_a_module_is_a_source_too():
    old, new = Tagger(), Tagger()
    old.norm.running_mean += 3
    tws.warm_start(new, WarmStartSettings(old, [".*"]))
    assert new.norm.running_mean.tolist() == [3, 3]


def test_a_pt_file_and_a_safetensors_file_are_sources(tmp_path):
    from safetensors.torch import save_file

    old = Tagger()
    torch.save(old.state_dict(), tmp_path / "a.pt")
    save_file(old.state_dict(), str(tmp_path / "a.safetensors"))
    for name in ("a.pt", "a.safetensors"):
        new = Tagger()
        tws.warm_start(new, tmp_path / name)
        assert torch.equal(new.out.weight, old.out.weight), name


def test_a_tf_dense_kernel_is_transposed_even_if_it_is_square(tf_checkpoint):
    prefix = tf_checkpoint(**{"out/kernel": [[1, 2], [3, 4]], "out/bias": [5, 6]})
    model = Tagger()
    tws.warm_start(model, WarmStartSettings(prefix, "out"))
    assert model.out.weight.tolist() == [[1, 3], [2, 4]]
    assert model.out.bias.tolist() == [5, 6]


def test_a_layout_can_be_overridden(tf_checkpoint):
    prefix = tf_checkpoint(**{"out/kernel": [[1, 2], [3, 4]]})
    model = Tagger()
    settings = WarmStartSettings(
        prefix, "out.weight", var_name_to_layout={"out/weight": "identity"}
    )
    tws.warm_start(model, settings)
    assert model.out.weight.tolist() == [[1, 2], [3, 4]]


def test_batch_norm_is_found_by_tensorflows_names(tf_checkpoint):
    prefix = tf_checkpoint(
        **{
            "norm/gamma": [1, 2],
            "norm/beta": [3, 4],
            "norm/moving_mean": [5, 6],
            "norm/moving_variance": [7, 8],
        }
    )
    model = Tagger()
    report = tws.warm_start(model, WarmStartSettings(prefix, ["norm"]))
    assert model.norm.weight.tolist() == [1, 2]
    assert model.norm.bias.tolist() == [3, 4]
    assert model.norm.running_mean.tolist() == [5, 6]
    assert model.norm.running_var.tolist() == [7, 8]
    assert report["norm.num_batches_tracked"].reason == "TensorFlow has no counterpart"
    assert report.missing_keys == ("norm.num_batches_tracked",)
    state = model.state_dict()
    del state["norm.num_batches_tracked"]  # as torch 0.4 had it
    reason = tws.warm_start(model, WarmStartSettings(state, ["norm"]))[
        "norm.num_batches_tracked"
    ].reason
    assert reason == "not in the checkpoint; the layer counts or estimates it anew"


def test_a_users_own_module_is_copied_as_it_is(tf_checkpoint):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.zeros(2, 2))

    model = nn.ModuleDict({"own": Own()})
    tws.warm_start(model, tf_checkpoint(**{"own/kernel": [[1, 2], [3, 4]]}))
    assert model["own"].kernel.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("layer", "key", "shape", "message"),
    [
        (nn.ConvTranspose1d(2, 2, 1, 1, 0, 0, 2, False), "kernel", [1, 1, 2], "have no groups"),
        (nn.LSTM(2, 2, 1, bias=False), "weight_ih_l0", [8, 2], "nn.LSTM.weight_ih_l0: .* gates"),
        (nn.GRUCell(2, 2, bias=False), "weight_ih", [6, 2], "nn.GRUCell.weight_ih: .* gates"),
        (nn.Bilinear(2, 2, 2, bias=False), "weight", [2, 2, 2], "TensorFlow has no layer like it"),
        (nn.MultiheadAttention(2, 1), "in_proj_weight", [6, 2], "packs query, key and value"),
    ],
)
def test_a_layer_whose_layout_differs_is_refused_from_tensorflow(
    tf_checkpoint, layer, key, shape, message
):
    model = nn.ModuleDict({"layer": layer})
    before = [parameter.clone() for parameter in model.parameters()]
    pattern = f"layer.({key}|weight)$"
    with pytest.raises(PlanError, match=message):
        tws.warm_start(
            model, WarmStartSettings(tf_checkpoint(**{f"layer/{key}": np.zeros(shape)}), pattern)
        )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_convolution_from_torch_is_copied():
    old, new = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
    tws.warm_start(new, old.state_dict())
    assert torch.equal(new.weight, old.weight)


def test_floating_dtypes_are_cast_and_losses_are_noted(tmp_path):
    old = {"weight": torch.tensor([[1.5, 1e-9]]), "bias": torch.tensor([2.0], dtype=torch.float16)}
    model = nn.Linear(2, 1)
    model.weight = nn.Parameter(torch.zeros(1, 2, dtype=torch.float16))
    report = tws.warm_start(model, old)
    assert model.weight.tolist() == [[1.5, 0]]
    assert report["weight"].change == "float32 -> float16 (lossy)"
    assert report["bias"].change == "float16 -> float32"
    assert report["bias"].state == "converted"
    assert len(report.notes) == 1
    assert "Precision or range is lost in 1 variable (such as 'weight')" in str(report.notes[0])


def test_bfloat16_into_float16_is_lossy_and_into_float32_is_not():
    for target, lossy in ((torch.float16, True), (torch.float32, False)):
        model = nn.ParameterDict({"w": torch.zeros(1, dtype=target)})
        plan = tws.plan_warm_start(model, {"w": torch.ones(1, dtype=torch.bfloat16)})
        assert plan.items[0].cast.lossy is lossy


def test_names_can_be_swapped_even_from_the_model_itself():
    model = nn.ParameterDict({"x": torch.ones(2), "y": torch.zeros(2)})
    tws.warm_start(model, WarmStartSettings(model, var_name_to_prev_var_name={"x": "y", "y": "x"}))
    assert model["x"].tolist() == [0, 0]
    assert model["y"].tolist() == [1, 1]


def test_two_variables_may_come_from_one_tensor(tf_checkpoint):
    model = nn.ParameterDict({"v1": torch.zeros(2), "v2": torch.zeros(2)})
    prefix = tf_checkpoint(v1=[1, 2])
    tws.warm_start(model, WarmStartSettings(prefix, var_name_to_prev_var_name={"v2": "v1"}))
    assert model["v1"].tolist() == model["v2"].tolist() == [1, 2]


def test_a_rename_does_not_switch_off_automatic_names_for_others(tf_checkpoint):
    prefix = tf_checkpoint(**{"old/kernel": [[1, 2], [3, 4]], "out/bias": [5, 6]})
    model = Tagger()
    settings = WarmStartSettings(prefix, "out", None, {"out/weight:0": "old/kernel:0"})
    tws.warm_start(model, settings)
    assert model.out.weight.tolist() == [[1, 3], [2, 4]]
    assert model.out.bias.tolist() == [5, 6]


def test_a_tied_weight_saved_under_both_its_names_is_no_ambiguity():
    model, old = Tagger(words=2), Tagger(words=2)
    for tagger in (model, old):
        tagger.out.weight = tagger.embed.weight
    tws.warm_start(model, old.state_dict())
    assert torch.equal(model.embed.weight, old.embed.weight)
    assert model.out.weight is model.embed.weight


def test_a_tied_weight_found_as_two_different_tensors_is_an_error():
    model = Tagger(words=2)
    model.out.weight = model.embed.weight
    state = {"embed.weight": torch.zeros(2, 2), "out.weight": torch.ones(2, 2)}
    with pytest.raises(PlanError, match=r"tied with out.weight\) is found under different keys"):
        tws.warm_start(model, WarmStartSettings(state, "embed"))


def test_a_tied_weight_is_laid_out_by_the_layer_under_whose_name_it_was_found(tf_checkpoint):
    prefix = tf_checkpoint(**{"out/kernel": [[1, 2], [3, 4]]})
    model = Tagger(words=2)
    model.out.weight = model.embed.weight
    tws.warm_start(model, WarmStartSettings(prefix, "embed"))
    assert model.embed.weight.tolist() == [[1, 3], [2, 4]]


def test_keys_that_a_wrapper_prefixed_are_found():
    old, new = nn.DataParallel(nn.Linear(2, 2)), nn.Linear(2, 2)
    tws.warm_start(new, old.state_dict())
    assert torch.equal(new.weight, old.module.weight)
    wrapped = nn.DataParallel(nn.Linear(2, 2))
    tws.warm_start(wrapped, new.state_dict())
    assert torch.equal(wrapped.module.weight, new.weight)


def test_load_state_dict_hooks_run():
    class Hooked(nn.Linear):
        def _load_from_state_dict(self, state, prefix, *rest):
            state[f"{prefix}weight"] = state[f"{prefix}weight"] * 2
            super()._load_from_state_dict(state, prefix, *rest)

    model = Hooked(1, 1)
    tws.warm_start(model, {"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    assert model.weight.tolist() == [[2]]


# -- all or nothing --------------------------------------------------------------------------------


def test_an_initializer_that_fails_leaves_the_model_as_it_was():
    def initializer(tensor):
        raise RuntimeError("no luck")

    model = Tagger()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {**Tagger().state_dict(), "embed.weight": torch.zeros(4, 2)}
    info = vocab(backup_initializer=initializer)
    with pytest.raises(RuntimeError, match="no luck"):
        tws.warm_start(model, WarmStartSettings(state, [".*"], {"embed.weight": info}))
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_a_corrupt_tensor_leaves_the_model_as_it_was(tf_checkpoint):
    prefix = tf_checkpoint(**{"embed/embeddings": np.ones((3, 2)), "out/bias": [1, 2]})
    data = f"{prefix}.data-00000-of-00001"
    with open(data, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    model = Tagger()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = WarmStartSettings(prefix, ["embed", "out.bias"])
    with pytest.raises(tws.CorruptCheckpointError, match="'out/bias' is damaged: its checksum"):
        tws.warm_start(model, settings)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    tws.warm_start(model, WarmStartSettings(prefix, "embed"))  # what is not read does no harm
    assert model.embed.weight.tolist() == [[1, 1]] * 3


def test_a_model_rebuilt_after_planning_is_refused():
    model = nn.Linear(2, 2)
    plan = tws.plan_warm_start(model, nn.Linear(2, 2))
    model.weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(tws.SettingsError, match=r"changed since the plan was made \(weight is"):
        tws.apply_plan(plan)


def test_planning_changes_nothing_and_a_plan_can_be_applied_twice():
    model, old = nn.Linear(2, 2), nn.Linear(2, 2)
    before = model.weight.clone()
    plan = tws.plan_warm_start(model, old)
    assert torch.equal(model.weight, before)
    tws.apply_plan(plan)
    tws.apply_plan(plan)
    assert torch.equal(model.weight, old.weight)


def test_strides_device_dtype_and_requires_grad_stay():
    model = nn.Embedding(3, 2)
    strided = torch.zeros(2, 3).t()
    model.weight = nn.Parameter(strided, requires_grad=False)
    state = {"weight": torch.arange(8.0).reshape(4, 2)}
    tws.warm_start(model, WarmStartSettings(state, None, {"weight": vocab()}))
    assert model.weight.tolist() == [[6, 7], [0, 0], [0, 1]]
    assert model.weight.stride() == (1, 3)
    assert model.weight.requires_grad is False
    assert model.weight.data_ptr() == strided.data_ptr()


# -- the report ------------------------------------------------------------------------------------


def test_the_report_unpacks_like_torchs_own_result():
    model = nn.Linear(2, 2)
    settings = WarmStartSettings(
        {"weight": torch.zeros(2, 2), "x": torch.zeros(1)}, on_missing="keep"
    )
    missing, unexpected = tws.warm_start(model, settings)
    assert missing == ("bias",)
    assert unexpected == ("x",)


def test_a_mismatch_can_be_kept_and_is_reported():
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    state = {"weight": torch.zeros(3, 2), "bias": torch.ones(2)}
    report = tws.warm_start(model, WarmStartSettings(state, on_mismatch="keep"))
    assert report.mismatched_keys == (("weight", (3, 2), (2, 2)),)
    assert torch.equal(model.weight, before)
    assert model.bias.tolist() == [1, 1]


def test_every_variable_and_row_is_in_exactly_one_state(tf_checkpoint):
    prefix = tf_checkpoint(
        **{"embed/embeddings": np.ones((6, 2)), "out/kernel": np.ones((2, 2)), "out/bias": [1, 2]}
    )
    model = Tagger(words=4)
    vocabs = {"embed.weight": vocab(num_oov_buckets=1)}
    report = tws.warm_start(model, WarmStartSettings(prefix, "(embed|out).*", vocabs))
    states = ("remapped", "converted", "renamed", "copied", "kept")
    assert sum(report.count(state) for state in states) == len(report.variables) == 8
    rows = report["embed.weight"].rows
    parts = (rows.copied, rows.oov_copied, rows.initialised, rows.oov_initialised, rows.left)
    assert sum(parts) == rows.total == 4
    assert rows.copied + rows.dropped + rows.old_unused == 6
    assert json.loads(json.dumps(report.to_dict()))["variables"][0]["state"] == "remapped"
    assert "embed.weight" in report._repr_html_()


def test_a_module_with_versions_is_not_taken_for_an_old_one(tf_checkpoint):
    class Versioned(nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state, prefix, metadata, *rest):
            self.seen = metadata.get("version")
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    model = nn.ModuleDict({"out": Versioned(2, 2)})
    tws.warm_start(model, tf_checkpoint(**{"out/kernel": np.ones((2, 2)), "out/bias": [1, 2]}))
    assert model["out"].seen == 2
    old = nn.ModuleDict({"out": nn.Linear(2, 2)})
    tws.warm_start(model, old.state_dict())  # torch wrote down which version it was
    assert model["out"].seen == 1


def test_a_session_shows_a_line():
    plan = tws.plan_warm_start(nn.Linear(2, 2), nn.Linear(2, 2))
    assert repr(plan) == "<WarmStartPlan from <Linear>: 2 variables: 2 copied>"
    report = tws.apply_plan(plan)
    assert repr(report) == "<WarmStartReport from <Linear>: 2 variables: 2 copied>"


def test_names_that_a_saver_wrote_with_output_numbers_are_found(tf_checkpoint):
    model = Tagger()
    tws.warm_start(model, WarmStartSettings(tf_checkpoint(**{"out/bias:0": [5, 6]}), "out.bias"))
    assert model.out.bias.tolist() == [5, 6]


# -- tensors that TensorFlow's layer has not, or under no leaf -------------------------------------


def test_a_norm_made_without_scale_keeps_a_scale_that_does_nothing(tf_checkpoint):
    prefix = tf_checkpoint(**{"norm/beta": [1.0, 2.0], "norm/moving_mean": [3.0, 4.0]})
    model = nn.ModuleDict({"norm": nn.BatchNorm1d(2)})
    report = tws.warm_start(model, WarmStartSettings(prefix))
    assert report["norm.weight"].state == "kept"
    assert report["norm.weight"].reason == "TensorFlow's layer has none: 1"
    assert model["norm"].bias.tolist() == [1.0, 2.0]
    with torch.no_grad():
        model["norm"].weight.fill_(0.5)
    with pytest.raises(PlanError, match=r"norm\.weight is not in the checkpoint"):
        tws.warm_start(model, WarmStartSettings(prefix))


def test_a_norm_of_which_nothing_is_there_is_missing(tf_checkpoint):
    prefix = tf_checkpoint(other=[1.0])
    with pytest.raises(PlanError, match=r"norm\.weight is not in the checkpoint"):
        tws.warm_start(nn.ModuleDict({"norm": nn.LayerNorm(2)}), WarmStartSettings(prefix))


def test_a_table_without_a_layer_is_an_embedding_s_weight(tf_checkpoint):
    prefix = tf_checkpoint(**{"bert/words": [[1.0, 2.0], [3.0, 4.0]]})
    model = nn.ModuleDict({"bert": nn.ModuleDict({"words": nn.Embedding(2, 2)})})
    tws.warm_start(model, WarmStartSettings(prefix))
    assert model["bert"]["words"].weight.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_keras_s_own_vocabulary_begins_with_a_blank_entry():
    old, new = ["", "[UNK]", "a", "b"], ["", "[UNK]", "b"]
    table = torch.arange(8.0).view(4, 2)
    model = nn.Embedding(3, 2)
    infos = {"weight": VocabInfo(new, -1, 0, old)}
    tws.warm_start(model, WarmStartSettings({"weight": table}, ".*", infos))
    assert torch.equal(model.weight, table[[0, 1, 3]])
