"""Slots of TensorFlow's optimizers: found under every name they have had, with torch's values.

Checkpoints by `bundle_writer` for names and refusals; real TensorFlow and Keras for values: both
sides take one more step with the same gradients, and the weights must agree.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, UnsupportedError, VocabInfo, WarmStartSettings

EVERYTHING = [".*"]
FOLDER = os.environ.get("TORCH_WARMSTART_CHECKPOINTS", "")


def _entry(key, values):
    array = np.asarray(values)
    if array.dtype == np.int64:
        return BundleEntry(key, DType.INT64, array.shape, array.astype("<i8").tobytes())
    return BundleEntry(key, DType.FLOAT, array.shape, array.astype("<f4").tobytes())


@pytest.fixture
def tf_checkpoint(tmp_path):
    def write(tensors):
        prefix = str(tmp_path / "model.ckpt-1")
        write_bundle(prefix, [_entry(key, values) for key, values in sorted(tensors.items())])
        return prefix

    return write


class One(nn.Module):
    """One weight that is copied as it is."""

    def __init__(self, shape=(3,)):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(shape))


def _powers(steps, betas=(0.9, 0.999)):
    """What TensorFlow has after so many steps: multiplied and rounded each time."""
    values = []
    for beta in betas:
        value = np.float32(beta)
        for _ in range(steps):
            value = np.float32(value * np.float32(beta))
        values.append(value)
    return dict(zip(("beta1_power", "beta2_power"), values, strict=True))


def _start(prefix, optimizer=torch.optim.Adam, model=None, **options):
    model = model or One()
    settings = {k: options.pop(k) for k in list(options) if k.startswith(("var_", "on_"))}
    made = optimizer(model.parameters(), **options)
    report = tws.warm_start(
        model, WarmStartSettings(prefix, EVERYTHING, **settings), optimizer=made
    )
    (parameter, *_) = model.parameters()
    return SimpleNamespace(
        model=model, optimizer=made, report=report, state=dict(made.state[parameter])
    )


M, V = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
ADAM = {"w": [0.0, 0.0, 0.0], "w/Adam": M, "w/Adam_1": V, **_powers(5)}

# -- names -----------------------------------------------------------------------------------------

NAMES = {
    "plain": {"w/Adam": M, "w/Adam_1": V},
    "in a scope": {"train/w/Adam": M, "train/w/Adam_1": V},
    "Tensor2Tensor": {"training/w/Adam": M, "training/w/Adam_1": V},
    "output numbers": {"w/Adam:0": M, "w/Adam_1:0": V},
    "mangled by a scope of three letters": {"w/t_0/Adam": M, "w/t_0/Adam_1": V},
    "mangled by one of six": {"w/part_0/Adam": M, "w/part_0/Adam_1": V},
    "mangled by one as long as the name": {"w/w/part_0/Adam": M, "w/w/part_0/Adam_1": V},
    "a second optimizer's only": {"w/Adam_2": M, "w/Adam_3": V},
    "AdamW": {"w/AdamW": M, "w/AdamW_1": V},
    "a name of its own": {"w/Foo": M, "w/Foo_1": V},
    "Keras under an estimator": {"training/Adam/w/m": M, "training/Adam/w/v": V},
    "Keras 2.11 in HDF5": {"optimizer_weights/Adam/m/w": M, "optimizer_weights/Adam/v/w": V},
}


@pytest.mark.parametrize("slots", NAMES.values(), ids=NAMES)
def test_adam_is_found_by_every_name_it_has_had(tf_checkpoint, slots):
    keras = any("/Adam/" in key for key in slots)
    steps = {"training/Adam/iter": np.int64(5)} if keras else _powers(5)
    if "optimizer_weights/Adam/m/w" in slots:
        steps = {"optimizer_weights/iteration": np.int64(5)}
    started = _start(tf_checkpoint({"w": [7.0, 8.0, 9.0], **slots, **steps}))
    assert started.state["exp_avg"].tolist() == M
    assert started.state["exp_avg_sq"].tolist() == V
    assert started.state["step"] == 5


@pytest.mark.parametrize("suffix", ["adam_m", "Adam"])
def test_slots_of_a_longer_name_are_not_taken_for_those_of_a_shorter(tf_checkpoint, suffix):
    other = {"m": f"a/w/{suffix}", "v": f"a/w/{suffix.replace('_m', '_v')}"}
    other["v"] += "_1" if suffix == "Adam" else ""
    prefix = tf_checkpoint(
        {
            "w": [0.0, 0.0, 0.0],
            "a/w": [0.0, 0.0, 0.0],
            other["m"]: M,
            other["v"]: V,
            "global_step": np.int64(3),
            **_powers(3),
        }
    )
    with pytest.raises(PlanError, match="no optimizer's slots for 'w'"):
        _start(prefix)


def test_bert_has_its_own_names_and_counts_by_the_global_step(tf_checkpoint):
    prefix = tf_checkpoint(
        {"w": [0.0] * 3, "w/adam_m": M, "w/adam_v": V, "global_step": np.int64(20)}
    )
    started = _start(prefix, torch.optim.AdamW)
    assert started.state["exp_avg_sq"].tolist() == V
    assert started.state["step"] == 20
    assert any("does not correct the bias" in str(note) for note in started.report.notes)


def test_the_mangled_names_of_a_canned_estimator_are_tied_to_their_variables(tf_checkpoint):
    prefix = tf_checkpoint(
        {
            "dnn/hiddenlayer_0/biases": [0.0, 0.0],
            "dnn/hiddenlayer_0/biases/denlayer_0/biases/part_0/Adagrad": [1.0, 2.0],
            "dnn/hiddenlayer_0/weights": [[0.0, 0.0]],
            "dnn/hiddenlayer_0/weights/enlayer_0/weights/part_0/Adagrad": [[3.0, 4.0]],
        }
    )
    model = nn.Module()
    model.dnn = nn.Module()
    model.dnn.hiddenlayer_0 = nn.Linear(1, 2)
    optimizer = torch.optim.Adagrad(model.parameters())
    tws.warm_start(model, WarmStartSettings(prefix, EVERYTHING), optimizer=optimizer)
    layer = model.dnn.hiddenlayer_0
    assert optimizer.state[layer.weight]["sum"].tolist() == [[3.0], [4.0]]
    assert optimizer.state[layer.bias]["sum"].tolist() == [1.0, 2.0]


def test_two_optimizers_of_one_variable_are_an_error_that_names_both(tf_checkpoint):
    prefix = tf_checkpoint({**ADAM, "w/Adam_2": V, "w/Adam_3": M})
    with pytest.raises(PlanError) as error:
        _start(prefix)
    assert "'w/Adam' and 'w/Adam_2'" in str(error.value)
    assert "var_name_to_prev_var_name={'w/exp_avg': 'w/Adam'}" in str(error.value)
    names = {"w/exp_avg": "w/Adam_2", "w/exp_avg_sq": "w/Adam_3", "w/step": "beta1_power"}
    started = _start(prefix, var_name_to_prev_var_name=names)
    assert started.state["exp_avg"].tolist() == V
    assert started.state["step"] == 5


def test_slots_in_several_scopes_are_an_error_that_names_them(tf_checkpoint):
    prefix = tf_checkpoint({**ADAM, "opt/w/Adam": M, "opt/w/Adam_1": V})
    with pytest.raises(PlanError, match="'w/Adam' and 'opt/w/Adam'|'opt/w/Adam' and 'w/Adam'"):
        _start(prefix)


def test_a_slot_of_another_shape_is_not_taken(tf_checkpoint):
    with pytest.raises(PlanError, match="have other shapes than 'w'"):
        _start(tf_checkpoint({**ADAM, "w/Adam": [1.0, 2.0]}))


def test_a_mismatch_of_optimizers_says_what_the_checkpoint_has(tf_checkpoint):
    prefix = tf_checkpoint({"w": [0.0] * 3, "w/Adagrad": M})
    with pytest.raises(PlanError) as error:
        _start(prefix)
    assert "has slots of Adagrad for 'w' ('w/Adagrad'); Adam cannot go on" in str(error.value)
    assert len(error.value.problems) == 3
    assert _start(prefix, on_missing="keep").state == {}


@pytest.mark.parametrize("slots", [["w/Ftrl", "w/Ftrl_1"], ["w/AdagradDA", "w/AdagradDA_1"]])
def test_what_torch_has_no_like_of_is_refused(tf_checkpoint, slots):
    prefix = tf_checkpoint({"w": [0.0] * 3, **dict.fromkeys(slots, M)})
    with pytest.raises(PlanError, match=slots[0].partition("/")[2]):
        _start(prefix, torch.optim.Adagrad)


def test_half_of_an_optimizers_slots_is_an_error(tf_checkpoint):
    with pytest.raises(PlanError, match="of Adam's slots for 'w' has only 'w/Adam'"):
        _start(tf_checkpoint({"w": [0.0] * 3, "w/Adam": M, **_powers(1)}))


def test_half_of_an_optimizers_slots_is_not_taken(tf_checkpoint):
    prefix = tf_checkpoint({"w": [1.0] * 3, "w/Adam": M, **_powers(50)})
    started = _start(prefix, on_missing="keep")
    assert started.state == {}  # no count of steps either
    assert started.model.w.tolist() == [1.0] * 3
    assert started.report["w/exp_avg"].reason == "the rest of its state is not taken"
    assert tuple(map(str, started.report.notes)) == (
        "The optimizer's state of 1 parameter (such as 'w') stays as it is, with all of its slots, "
        "as parts of a state do not go together: w/exp_avg_sq is not in the checkpoint, which of "
        "Adam's slots for 'w' has only 'w/Adam'.",
    )


NOT_TIED = {
    "a name of its own": ({"w/mine": M}, "'w/mine'"),
    "a .keras file": (
        {"optimizer/vars/0": np.int64(5), "optimizer/vars/2": M},
        "'optimizer/vars/2'",
    ),
    "two variables of one name": (
        {
            "a_b/w": M,
            "a/b_w": M,
            "optimizer_weights/adam/a_b_w_momentum": M,
            "optimizer_weights/adam/a_b_w_velocity": M,
        },
        "'optimizer_weights/adam/a_b_w_momentum' and 1 other",
    ),
}


@pytest.mark.parametrize(("tensors", "shown"), NOT_TIED.values(), ids=NOT_TIED)
def test_slots_that_cannot_be_tied_are_said_to_be_there_once(tf_checkpoint, tensors, shown):
    prefix = tf_checkpoint({"w": [0.0] * 3, **tensors})
    with pytest.raises(PlanError) as error:
        _start(prefix)
    example = shown.partition(" and ")[0]
    assert tuple(map(str, error.value.problems)) == (
        f"{prefix} has an optimizer's variables ({shown}), but which is whose, or what it means, "
        "cannot be known. Name the key of each slot, for example "
        f"var_name_to_prev_var_name={{'w/exp_avg': {example}}}, or leave the slots out of "
        "vars_to_warm_start.",
    )
    assert "suggest_names" not in str(error.value)


def test_averages_of_weights_are_no_optimizers_slots(tf_checkpoint):
    prefix = tf_checkpoint({"w": M, "w/ExponentialMovingAverage": M})
    with pytest.raises(PlanError, match="has no optimizer's slots for 'w'"):
        _start(prefix)


def test_a_momentum_that_nothing_explains_is_taken_as_it_is_and_noted(tf_checkpoint):
    prefix = tf_checkpoint({"w": M, "w/mine": V})
    names = {"w/momentum_buffer": "w/mine"}
    options = {"lr": 0.1, "momentum": 0.9, "var_name_to_prev_var_name": names}
    started = _start(prefix, torch.optim.SGD, **options)
    assert started.state["momentum_buffer"].tolist() == V
    assert tuple(map(str, started.report.notes)) == (
        "What var_name_to_prev_var_name names for momentum_buffer is taken as it is. Keras and "
        "TensorFlow's RMSProp keep momentum with the learning rate in it, Keras' SGD with the "
        "other sign too.",
    )


# By case: torch's optimizer, what follows a variable's name in Keras 3, and its slots in torch.
IN_H5 = {
    "adam": (
        lambda p: torch.optim.Adam(p, amsgrad=True),
        {"momentum": "exp_avg", "velocity": "exp_avg_sq", "velocity_hat": "max_exp_avg_sq"},
    ),
    "adam_w": (torch.optim.AdamW, {"momentum": "exp_avg", "velocity": "exp_avg_sq"}),
    "nadam_1": (torch.optim.NAdam, {"momentum": "exp_avg", "velocity": "exp_avg_sq"}),
    "adamax": (torch.optim.Adamax, {"momentum": "exp_avg", "norm": "exp_inf"}),
    "rm_sprop": (
        lambda p: torch.optim.RMSprop(p, lr=1, momentum=0.9, centered=True),
        {"velocity": "square_avg", "momentum": "momentum_buffer", "average_gradient": "grad_avg"},
    ),
    "sgd": (lambda p: torch.optim.SGD(p, lr=1, momentum=0.9), {"momentum": "momentum_buffer"}),
    "adagrad": (torch.optim.Adagrad, {"accumulator": "sum"}),
    "adadelta": (
        torch.optim.Adadelta,
        {"accumulated_grad": "square_avg", "accumulated_delta_var": "acc_delta"},
    ),
    "loss_scale_optimizer/adam": (
        torch.optim.Adam,
        {"momentum": "exp_avg", "velocity": "exp_avg_sq"},
    ),
}


@pytest.mark.parametrize("name", IN_H5)
def test_keras_3s_names_in_hdf5_are_tied(tf_checkpoint, name):
    make, slots = IN_H5[name]
    values = {word: [number + 1.0] * 3 for number, word in enumerate(slots)}
    folder = f"optimizer_weights/{name}"
    prefix = tf_checkpoint(
        {
            "s/w": M,
            "s/w_momentum": V,  # a variable
            f"optimizer_weights/{name.rpartition('/')[2]}/iteration": np.int64(5),
            **{f"{folder}/s_w_{word}": value for word, value in values.items()},
        }
    )
    model = nn.Module()
    model.s = One()
    started = _start(prefix, make, model)
    sign = -1 if name == "sgd" else 1
    for word, slot in slots.items():
        assert started.state[slot].tolist() == [sign * value for value in values[word]]
    assert started.state.get("step", 5) == 5


def test_an_optimizer_without_a_counterpart_keeps_its_state(tf_checkpoint):
    report = _start(tf_checkpoint(ADAM), torch.optim.ASGD).report
    assert report["w/eta"].reason == "TensorFlow has no counterpart of ASGD"


def test_an_optimizer_that_is_not_known_asks_for_names(tf_checkpoint):
    class Mine(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter].setdefault("mean", torch.zeros_like(parameter))

    prefix = tf_checkpoint(ADAM)
    with pytest.raises(PlanError, match="what Mine keeps as 'mean' is not known"):
        _start(prefix, Mine)
    started = _start(prefix, Mine, var_name_to_prev_var_name={"w/mean": "w/Adam"})
    assert started.state["mean"].tolist() == M


def test_a_hundred_thousand_keys_are_looked_at_once():
    from torch_warmstart.slots.tensorflow.index import SlotIndex

    class Counting(dict):
        looks = 0

        def __iter__(self):
            self.looks += 1
            return super().__iter__()

        def graph_optimizers(self):
            return ()

    checkpoint = Counting()
    for number in range(25_000):
        for suffix in ("", "/Adam", "/Adam_1", "/step_size"):
            checkpoint[f"net/layer_{number}/kernel{suffix}"] = None
    index = SlotIndex(checkpoint)
    for number in range(25_000):
        assert len(index.of(f"net/layer_{number}/kernel")) == 1
    assert checkpoint.looks == 1


# -- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 7, 500, 3_000, 60_000])
def test_powers_of_betas_tell_the_steps(tf_checkpoint, steps):
    assert _start(tf_checkpoint({**ADAM, **_powers(steps)})).state["step"] == steps


def test_steps_are_counted_by_the_powers_in_the_optimizers_scope(tf_checkpoint):
    scoped = {
        f"{scope}/{key}": value
        for scope, steps in (("policy", 3), ("value", 9))
        for key, value in _powers(steps).items()
    }
    prefix = tf_checkpoint(
        {"policy/w": M, "policy/policy/w/Adam": M, "policy/policy/w/Adam_1": V, **scoped}
    )
    model = nn.Module()
    model.policy = One()
    assert _start(prefix, model=model).state["step"] == 3


def test_powers_that_disagree_are_an_error_that_names_them(tf_checkpoint):
    more = {f"{key}_1": value for key, value in _powers(9).items()}
    prefix = tf_checkpoint({**ADAM, **more})
    with pytest.raises(UnsupportedError, match="'beta1_power' means 5.*'beta1_power_1' means 9"):
        _start(prefix)
    named = {"w/step": "beta1_power_1"}
    assert _start(prefix, var_name_to_prev_var_name=named).state["step"] == 9


@pytest.mark.parametrize("betas", [(0.8, 0.999), (0.9, 0.99), (0.0, 0.9991)])
def test_other_betas_are_an_error_and_change_nothing(tf_checkpoint, betas):
    model = One()
    optimizer = torch.optim.Adam(model.parameters(), betas=betas)
    prefix = tf_checkpoint({**ADAM, "w": [7.0, 8.0, 9.0]})
    with pytest.raises(UnsupportedError, match="trained with other betas"):
        tws.warm_start(model, WarmStartSettings(prefix, EVERYTHING), optimizer=optimizer)
    assert model.w.tolist() == [0, 0, 0]
    assert not optimizer.state


def test_of_several_optimizers_powers_those_of_torchs_betas_count(tf_checkpoint):
    more = {f"{key}_1": value for key, value in _powers(9, (0.5, 0.999)).items()}
    prefix = tf_checkpoint({**ADAM, **more})  # as a generator and its discriminator have them
    assert _start(prefix).state["step"] == 5
    assert _start(prefix, betas=(0.5, 0.999)).state["step"] == 9
    with pytest.raises(UnsupportedError) as error:
        _start(prefix, betas=(0.8, 0.999))
    assert str(error.value).endswith(
        "which is no power of 0.8, torch's beta: the checkpoint was trained with other betas. Give "
        "the optimizer the checkpoint's betas, or name what counts its steps, as 'beta1_power_1' "
        "or 'beta2_power' or 'beta2_power_1' may: "
        "var_name_to_prev_var_name={'w/step': 'beta1_power_1'}."
    )
    prefix = tf_checkpoint({**ADAM, "train/global_step": np.int64(3)})
    with pytest.raises(UnsupportedError, match=r"as 'train/global_step' may: .*'train/global_s"):
        _start(prefix, betas=(0.8, 0.999))


def test_a_schedule_of_betas_leaves_the_other_beta(tf_checkpoint):
    """As OneCycleLR does when it is made."""
    with pytest.raises(UnsupportedError, match="steps, as 'beta2_power' may") as error:
        _start(tf_checkpoint(ADAM), betas=(0.95, 0.999))
    assert str(error.value).endswith("var_name_to_prev_var_name={'w/step': 'beta2_power'}.")
    names = {"w/step": "beta2_power"}
    started = _start(tf_checkpoint(ADAM), betas=(0.95, 0.999), var_name_to_prev_var_name=names)
    assert started.state["step"] == 5
    with pytest.raises(UnsupportedError, match=r"Give the optimizer the checkpoint's betas\.$"):
        _start(
            tf_checkpoint(ADAM),
            betas=(0.95, 0.999),
            var_name_to_prev_var_name={"w/step": "beta1_power"},
        )


def test_optimizers_that_took_the_same_steps_need_no_names(tf_checkpoint):
    more = {f"{key}_1": value for key, value in _powers(5).items()}
    assert _start(tf_checkpoint({**ADAM, **more})).state["step"] == 5


def test_other_betas_are_fine_once_a_count_of_steps_is_named(tf_checkpoint):
    prefix = tf_checkpoint({**ADAM, "global_step": np.int64(6)})
    named = {"w/step": "global_step"}
    started = _start(prefix, betas=(0.5, 0.9), var_name_to_prev_var_name=named)
    assert started.state["step"] == 6


def test_powers_that_have_become_0_leave_the_global_step(tf_checkpoint):
    gone = {"beta1_power": np.float32(0), "beta2_power": np.float32(1e-42)}
    with pytest.raises(UnsupportedError, match="have become 0 after many steps"):
        _start(tf_checkpoint({**ADAM, **gone}))
    prefix = tf_checkpoint({**ADAM, **gone, "global_step": np.int64(1_000_000)})
    assert _start(prefix).state["step"] == 1_000_000


def test_steps_that_nothing_counts_are_an_error_that_asks_for_a_name(tf_checkpoint):
    with pytest.raises(PlanError, match="nothing there counts the steps of Adam"):
        _start(tf_checkpoint({"w": M, "w/Adam": M, "w/Adam_1": V}))


def test_nadams_product_is_worked_out_from_adams_steps(tf_checkpoint):
    started = _start(tf_checkpoint(ADAM), torch.optim.NAdam)
    wanted = np.prod([0.9 * (1 - 0.5 * 0.96 ** (step * 4e-3)) for step in range(1, 6)])
    assert float(started.state["mu_product"]) == pytest.approx(wanted)


def test_an_optimizer_without_a_count_keeps_torchs(tf_checkpoint):
    report = _start(tf_checkpoint({"w": M, "w/Adagrad": V}), torch.optim.Adagrad).report
    assert report["w/step"].reason == "TensorFlow 1's Adagrad counts no steps"


# -- values and options ----------------------------------------------------------------------------


def test_a_momentum_with_the_learning_rate_in_it_is_divided_by_torchs(tf_checkpoint):
    prefix = tf_checkpoint({"w": M, "SGD/w/momentum": V, "SGD/iter": np.int64(3)})
    started = _start(prefix, torch.optim.SGD, lr=0.5, momentum=0.9)
    assert started.state["momentum_buffer"].tolist() == [-8, -10, -12]
    assert any("divided by torch's lr as it is now (0.5)" in str(n) for n in started.report.notes)
    renamed = {"w/momentum_buffer": "SGD/w/momentum"}
    again = _start(
        prefix,
        torch.optim.SGD,
        lr=torch.tensor(0.5),
        momentum=0.9,
        var_name_to_prev_var_name=renamed,
    )
    assert again.state["momentum_buffer"].tolist() == [-8, -10, -12]


def test_a_learning_rate_of_0_is_an_error_where_it_divides(tf_checkpoint):
    prefix = tf_checkpoint({"w": M, "SGD/w/momentum": V, "SGD/iter": np.int64(3)})
    with pytest.raises(PlanError, match="divided by the optimizer's lr, which is 0"):
        _start(prefix, torch.optim.SGD, lr=0.0, momentum=0.9)


@pytest.mark.parametrize("stepped", [False, True], ids=["before a step", "after a step"])
@pytest.mark.parametrize(
    "options",
    [{}, {"amsgrad": True}, {"foreach": True}, {"fused": True}, {"lr": torch.tensor(1e-3)}],
    ids=lambda options: ",".join(options) or "plain",
)
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_every_flavour_goes_on(tf_checkpoint, optimizer, options, stepped):
    model = One()
    made = optimizer(model.parameters(), **options)
    if stepped:
        model.w.grad = torch.ones(3)
        made.step()
    report = tws.warm_start(
        model, WarmStartSettings(tf_checkpoint(ADAM), EVERYTHING), optimizer=made
    )
    assert made.state[model.w]["exp_avg"].tolist() == M
    assert made.state[model.w]["step"] == 5
    if "amsgrad" in options:
        assert "ran without amsgrad" in report["w/max_exp_avg_sq"].reason
    model.w.grad = torch.ones(3)
    made.step()
    assert torch.isfinite(model.w).all()
    assert all(torch.isfinite(value).all() for value in made.state[model.w].values())


@pytest.mark.parametrize("amsgrad", [False, True])
def test_slots_go_where_their_parameter_is(tf_checkpoint, device, amsgrad):
    model = One().to(device)
    options = {"capturable": True, "lr": torch.tensor(1e-3)} if device.type == "cuda" else {}
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=amsgrad, **options)
    settings = WarmStartSettings(tf_checkpoint(ADAM), EVERYTHING)
    tws.warm_start(model, settings, optimizer=optimizer)
    state = optimizer.state[model.w]
    assert state["exp_avg"].device.type == device.type
    assert state["step"].device.type == ("cuda" if options else "cpu")
    assert state["step"] == 5
    model.w.grad = torch.ones_like(model.w)
    optimizer.step()
    assert torch.isfinite(model.w).all()


@pytest.mark.parametrize("optimizer", [torch.optim.NAdam, torch.optim.RAdam])
def test_relatives_of_adam_go_on_with_its_averages(tf_checkpoint, optimizer):
    started = _start(tf_checkpoint(ADAM), optimizer)
    assert started.state["exp_avg"].tolist() == M
    assert any("by its own rule" in str(note) for note in started.report.notes)


def test_sparse_adam_goes_on_with_adams_averages(tf_checkpoint):
    started = _start(tf_checkpoint(ADAM), torch.optim.SparseAdam)
    assert started.state["exp_avg_sq"].tolist() == V
    assert started.state["step"] == 5


def test_an_option_that_tensorflow_did_not_use_begins_as_torch_begins_it(tf_checkpoint):
    prefix = tf_checkpoint({"w": M, "w/RMSProp": V, "w/RMSProp_1": M})
    started = _start(prefix, torch.optim.RMSprop, centered=True, momentum=0.9, lr=0.5)
    assert started.state["square_avg"].tolist() == V
    assert started.state["momentum_buffer"].tolist() == [2, 4, 6]
    assert started.state["grad_avg"].tolist() == [0, 0, 0]
    assert "ran without centered" in started.report["w/grad_avg"].reason


def test_slots_follow_their_table_through_a_vocabulary(tf_checkpoint):
    table = np.arange(8.0).reshape(4, 2)
    prefix = tf_checkpoint({"e/embeddings": table, "e/embeddings/Adagrad": table + 10})
    model = nn.Module()
    model.e = nn.Embedding(3, 2)
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.1)
    vocab = VocabInfo(["d", "new", "a"], -1, 0, ["a", "b", "c", "d"])
    settings = WarmStartSettings(prefix, EVERYTHING, {"e.weight": vocab})
    tws.warm_start(model, settings, optimizer=optimizer)
    sums = optimizer.state[model.e.weight]["sum"]
    torch.testing.assert_close(sums, torch.tensor([[16, 17], [0.1, 0.1], [10, 11]]))


def test_slots_of_a_recurrent_layer_are_changed_as_its_weights(tf_checkpoint):
    random = np.random.default_rng(0)
    shapes = {"kernel": (2, 12), "recurrent_kernel": (3, 12), "bias": (12,)}
    values = {f"lstm/{k}": random.standard_normal(shape) for k, shape in shapes.items()}
    slots = {f"{k}/Adam{n}": value for k, value in values.items() for n in ("", "_1")}
    model = nn.Module()
    model.lstm = nn.LSTM(2, 3)
    started = _start(tf_checkpoint({**values, **slots, **_powers(2)}), model=model)
    state = started.optimizer.state
    for weight in (model.lstm.weight_ih_l0, model.lstm.weight_hh_l0, model.lstm.bias_ih_l0):
        assert torch.equal(state[weight]["exp_avg"], weight)
    biases = [state[model.lstm.bias_ih_l0], state[model.lstm.bias_hh_l0]]
    assert torch.equal(biases[0]["exp_avg_sq"], biases[1]["exp_avg_sq"])
    assert any("two biases" in str(note) for note in started.report.notes)


# -- real TensorFlow -------------------------------------------------------------------------------

LR, STEPS = 0.05, 6
OLD_STYLE, NEW_STYLE, KERAS_3 = "legacy", "tf_keras", "keras"


def _gradients(step):
    random = np.random.default_rng(step)
    return [random.standard_normal(shape).astype("f4") for shape in ((3, 2), (2,), (4, 3))]


def _train_tf1(folder, make, scope="", partitions=0):
    """A checkpoint after some steps, what slots held then, and the weights after one more."""
    from tf_oracle import tf1

    with tf1.Graph().as_default(), tf1.Session() as session:
        cut = tf1.fixed_size_partitioner(partitions) if partitions else None
        with tf1.variable_scope("", partitioner=cut):
            variables = [
                tf1.get_variable(name, shape, initializer=tf1.glorot_uniform_initializer(seed=1))
                for name, shape in (("d/kernel", [3, 2]), ("d/b", [2]), ("e/embeddings", [4, 3]))
                if name != "d/b"
            ]
            variables.insert(1, tf1.get_variable("d/bias", [2], initializer=tf1.zeros_initializer))
        wholes = [tf1.convert_to_tensor(v) for v in variables]
        feeds = [tf1.placeholder(whole.dtype, whole.shape) for whole in wholes]
        # The gradient of a product with a constant is that constant.
        loss = sum(tf1.reduce_sum(w * f) for w, f in zip(wholes, feeds, strict=True))
        count = tf1.train.get_or_create_global_step()
        optimizer = make(tf1.train)
        if scope:
            with tf1.variable_scope(scope):
                train = optimizer.minimize(loss, global_step=count)
        else:
            train = optimizer.minimize(loss, global_step=count)
        session.run(tf1.global_variables_initializer())

        def step(number):
            session.run(train, dict(zip(feeds, _gradients(number), strict=True)))

        for number in range(STEPS):
            step(number)
        prefix = tf1.train.Saver().save(session, str(folder / "tf1"))
        slots = {
            name: [session.run(optimizer.get_slot(v, name)) for v in variables]
            for name in optimizer.get_slot_names()
            if not partitions
        }
        step(STEPS)
        return prefix, slots, session.run(wholes)


class Twin(nn.Module):
    """What the TensorFlow model of these tests is in torch."""

    def __init__(self):
        super().__init__()
        self.d = nn.Linear(3, 2)
        self.e = nn.Embedding(4, 3)


def _go_on(prefix, make, prefix_of_names=""):
    """A twin, started from a checkpoint and one step further, with its optimizer's slots before."""
    model = Twin()
    holder = model
    if prefix_of_names:
        holder = nn.Module()
        setattr(holder, prefix_of_names, model)
    optimizer = make(holder.parameters())
    report = tws.warm_start(holder, WarmStartSettings(prefix, EVERYTHING), optimizer=optimizer)
    parameters = [model.d.weight, model.d.bias, model.e.weight]
    slots = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in parameters]
    gradients = [torch.from_numpy(g) for g in _gradients(STEPS)]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.t().contiguous() if parameter is model.d.weight else gradient
    optimizer.step()
    weights = [model.d.weight.detach().t(), model.d.bias.detach(), model.e.weight.detach()]
    return SimpleNamespace(slots=slots, weights=weights, report=report)


# By case: TensorFlow's optimizer, torch's, its slots by TensorFlow's names, and how far the weights
# may be apart after the step. Where it is not rounding, epsilon stands elsewhere.
TF1_CASES = {
    "Momentum": (
        lambda t: t.MomentumOptimizer(LR, 0.9),
        lambda p: torch.optim.SGD(p, LR, momentum=0.9),
        {"momentum": "momentum_buffer"},
        1e-6,
    ),
    "Momentum, Nesterov": (
        lambda t: t.MomentumOptimizer(LR, 0.9, use_nesterov=True),
        lambda p: torch.optim.SGD(p, LR, momentum=0.9, nesterov=True),
        {"momentum": "momentum_buffer"},
        1e-6,
    ),
    "Adam": (
        lambda t: t.AdamOptimizer(LR),
        lambda p: torch.optim.Adam(p, LR),
        {"m": "exp_avg", "v": "exp_avg_sq"},
        1e-6,
    ),
    "Adam, other betas and name": (
        lambda t: t.AdamOptimizer(LR, 0.8, 0.95, name="Foo"),
        lambda p: torch.optim.AdamW(p, LR, (0.8, 0.95), weight_decay=0),
        {"m": "exp_avg", "v": "exp_avg_sq"},
        1e-6,
    ),
    "Adagrad": (
        lambda t: t.AdagradOptimizer(LR),
        lambda p: torch.optim.Adagrad(p, LR),
        {"accumulator": "sum"},
        1e-6,
    ),
    "ProximalAdagrad": (
        lambda t: t.ProximalAdagradOptimizer(LR),
        lambda p: torch.optim.Adagrad(p, LR),
        {"accumulator": "sum"},
        1e-6,
    ),
    "Adadelta": (
        lambda t: t.AdadeltaOptimizer(LR, 0.9, 1e-6),
        lambda p: torch.optim.Adadelta(p, LR, 0.9, 1e-6),
        {"accum": "square_avg", "accum_update": "acc_delta"},
        1e-6,
    ),
    "RMSProp": (
        lambda t: t.RMSPropOptimizer(LR, 0.9, 0.8, 1e-10),
        lambda p: torch.optim.RMSprop(p, LR, 0.9, 1e-10, momentum=0.8),
        {"rms": "square_avg"},
        1e-6,
    ),
    "RMSProp, centered": (
        lambda t: t.RMSPropOptimizer(LR, 0.9, 0.8, 1e-10, centered=True),
        lambda p: torch.optim.RMSprop(p, LR, 0.9, 1e-10, momentum=0.8, centered=True),
        {"rms": "square_avg", "mg": "grad_avg"},
        1e-5,
    ),
}


def _assert_went_on(ours, weights, tolerance):
    for mine, theirs in zip(ours.weights, weights, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, atol=tolerance, rtol=0)


@pytest.mark.tensorflow
@pytest.mark.parametrize("case", TF1_CASES.values(), ids=TF1_CASES)
def test_torch_goes_on_where_tensorflow_1_was(tmp_path, case):
    make, make_torch, names, tolerance = case
    prefix, slots, weights = _train_tf1(tmp_path, make)
    ours = _go_on(prefix, make_torch)
    for theirs, mine in names.items():
        for number, kept in enumerate(slots[theirs]):
            value = ours.slots[number][mine]
            np.testing.assert_array_equal(value.t() if number == 0 else value, kept)
    _assert_went_on(ours, weights, tolerance)


@pytest.mark.tensorflow
@pytest.mark.parametrize("partitions", [0, 1, 2])
@pytest.mark.parametrize("scope", ["", "opt", "d", "a/long/scope", "d/kernel/part_0"])
def test_scopes_and_partitions_are_seen_through(tmp_path, scope, partitions):
    make = TF1_CASES["Adam"][0]
    prefix, _, weights = _train_tf1(tmp_path, make, scope, partitions)
    if scope and partitions == 2:  # each part is a tensor of its own, with holes
        with pytest.raises(PlanError, match="is in parts"):
            _go_on(prefix, TF1_CASES["Adam"][1])
        return
    _assert_went_on(_go_on(prefix, TF1_CASES["Adam"][1]), weights, 1e-6)


def _train_keras(folder, style, make):
    import tensorflow as tf

    if style == KERAS_3:
        import keras
    else:
        import tf_keras as keras
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")], name="n")
    table = keras.Sequential(
        [keras.layers.Input(()), keras.layers.Embedding(4, 3, name="e")], name="n"
    )
    variables = [*model.trainable_variables, *table.trainable_variables]
    module = keras.optimizers.legacy if style == OLD_STYLE else keras.optimizers
    optimizer = make(module)

    def step(number):
        gradients = [tf.constant(g) for g in _gradients(number)]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for number in range(STEPS):
        step(number)
    saved = tf.train.Checkpoint(model=model, table=table, optimizer=optimizer)
    prefix = saved.save(str(folder / "keras"))
    step(STEPS)
    return prefix, [np.asarray(v) for v in variables]


def _sgd(momentum=0.9, **more):
    return lambda p: torch.optim.SGD(p, LR, momentum=momentum, **more)


# By case: Keras' optimizer, torch's, the styles of Keras it is in, and the tolerance.
BOTH, ALL = (NEW_STYLE, KERAS_3), (OLD_STYLE, NEW_STYLE, KERAS_3)
KERAS_CASES = {
    "SGD": (lambda k: k.SGD(LR, 0.9), _sgd(), ALL, 1e-6),
    "SGD, Nesterov": (lambda k: k.SGD(LR, 0.9, nesterov=True), _sgd(nesterov=True), ALL, 1e-6),
    "Adam": (lambda k: k.Adam(LR), lambda p: torch.optim.Adam(p, LR, eps=1e-7), ALL, 1e-6),
    "Adam, amsgrad": (
        lambda k: k.Adam(LR, amsgrad=True),
        lambda p: torch.optim.Adam(p, LR, eps=1e-7, amsgrad=True),
        ALL,
        1e-6,
    ),
    "Adam, another name": (
        lambda k: k.Adam(LR, name="mine"),
        lambda p: torch.optim.Adam(p, LR, eps=1e-7),
        ALL,
        1e-6,
    ),
    "AdamW": (
        lambda k: k.AdamW(LR, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, LR, eps=1e-7, weight_decay=0.1),
        BOTH,
        1e-6,
    ),
    "Nadam": (
        lambda k: k.Nadam(LR),
        lambda p: torch.optim.NAdam(p, LR, eps=1e-7, momentum_decay=1.0),
        BOTH,
        1e-6,
    ),
    "Nadam, before 2.11": (
        lambda k: k.Nadam(LR),
        lambda p: torch.optim.NAdam(p, LR, eps=1e-7),
        (OLD_STYLE,),
        1e-6,
    ),
    "Adamax": (lambda k: k.Adamax(LR), lambda p: torch.optim.Adamax(p, LR, eps=1e-7), ALL, 1e-6),
    "Adagrad": (lambda k: k.Adagrad(LR), lambda p: torch.optim.Adagrad(p, LR, eps=1e-7), ALL, 1e-6),
    "Adadelta": (
        lambda k: k.Adadelta(LR, 0.9, 1e-6),
        lambda p: torch.optim.Adadelta(p, LR, 0.9, 1e-6),
        ALL,
        1e-6,
    ),
    "RMSprop": (
        lambda k: k.RMSprop(LR, 0.9, epsilon=1e-10),
        lambda p: torch.optim.RMSprop(p, LR, 0.9, 1e-10),
        ALL,
        1e-5,
    ),
    "RMSprop, centered, with momentum": (
        lambda k: k.RMSprop(LR, 0.9, 0.8, 1e-10, centered=True),
        lambda p: torch.optim.RMSprop(p, LR, 0.9, 1e-10, momentum=0.8, centered=True),
        ALL,
        1e-5,
    ),
    "Adafactor": (
        lambda k: k.Adafactor(LR),
        lambda p: torch.optim.Adafactor(p, LR, eps=(1e-15, 1e-3), weight_decay=0),
        (KERAS_3,),
        1e-6,
    ),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "style"), [(name, style) for name, case in KERAS_CASES.items() for style in case[2]]
)
def test_torch_goes_on_where_keras_was(tmp_path, name, style):
    make, make_torch, _, tolerance = KERAS_CASES[name]
    prefix, weights = _train_keras(tmp_path, style, make)
    ours = _go_on(prefix, make_torch, "n" if style == KERAS_3 else "")
    _assert_went_on(ours, weights, tolerance)
    assert not ours.report.missing_keys


@pytest.mark.tensorflow
@pytest.mark.parametrize("case", ["Momentum", "Adam", "Adagrad", "Adadelta", "RMSProp, centered"])
def test_tensorflow_1s_optimizers_are_found_in_an_object_graph(tmp_path, case):
    import tensorflow as tf
    from tf_oracle import tf1

    make, make_torch, names, tolerance = TF1_CASES[case]
    root = tf.Module()
    shapes = {"d/kernel": (3, 2), "d/bias": (2,), "e/embeddings": (4, 3)}
    variables = [tf.Variable(tf.ones(shape), name=name) for name, shape in shapes.items()]
    root.variables_ = variables
    optimizer = make(tf1.train)

    def step(number):
        gradients = [tf.constant(g) for g in _gradients(number)]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for number in range(STEPS):
        step(number)
    prefix = tf.train.Checkpoint(root=root, optimizer=optimizer).save(str(tmp_path / "tf"))
    kept = {name: optimizer.get_slot(variables[0], name).numpy() for name in names}
    step(STEPS)
    ours = _go_on(prefix, make_torch)
    for theirs, mine in names.items():
        np.testing.assert_array_equal(ours.slots[0][mine].t(), kept[theirs])
    _assert_went_on(ours, [v.numpy() for v in variables], tolerance)


@pytest.mark.tensorflow
@pytest.mark.parametrize("is_legacy", [False, True])
def test_an_optimizer_whose_loss_is_scaled_is_not_said_to_be_called_as_a_slot(tmp_path, is_legacy):
    import tf_keras as keras

    inner = (keras.optimizers.legacy if is_legacy else keras.optimizers).Adam()
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")])
    model.compile(keras.mixed_precision.LossScaleOptimizer(inner), "mse")
    model.fit(np.ones((8, 3), "f4"), np.ones((8, 2), "f4"), epochs=3, verbose=0)
    model.save_weights(str(tmp_path / "model"), save_format="tf")
    twin = nn.Module()
    twin.d = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(twin.parameters())
    settings = WarmStartSettings(str(tmp_path / "model"), EVERYTHING)
    (note,) = map(str, tws.warm_start(twin, settings, optimizer=optimizer).notes)
    assert note.startswith("TensorFlow's Adam adds epsilon to sqrt(v)")
    assert optimizer.state[twin.d.weight]["step"] == 3


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop, centered, with momentum", "Adagrad"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_optimizer_in_an_hdf5_file_of_keras_3_is_found(tmp_path, name):
    import keras

    make, make_torch, _, _ = KERAS_CASES[name]
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")])
    model.compile(make(keras.optimizers), "mse")
    model.fit(np.ones((8, 3), "f4"), np.ones((8, 2), "f4"), epochs=3, verbose=0)
    model.save(str(tmp_path / "model.h5"))
    twin = nn.Module()
    twin.d = nn.Linear(3, 2)
    optimizer = make_torch(twin.parameters())
    settings = WarmStartSettings(str(tmp_path / "model.h5"), EVERYTHING)
    assert not tws.warm_start(twin, settings, optimizer=optimizer).missing_keys
    endings = {
        "exp_avg": ("momentum", 1),
        "exp_avg_sq": ("velocity", 1),
        "square_avg": ("velocity", 1),
        "grad_avg": ("average_gradient", 1),
        "sum": ("accumulator", 1),
        "momentum_buffer": ("momentum", -LR if name == "SGD" else LR),
    }
    kept = {v.path.partition("d_kernel_")[2]: np.asarray(v) for v in model.optimizer.variables}
    for slot, value in optimizer.state[twin.d.weight].items():
        if slot != "step":
            ending, scale = endings[slot]
            np.testing.assert_allclose(value.t().numpy() * scale, kept[ending], rtol=1e-6)
    assert optimizer.state[twin.d.weight].get("step", 3) == 3


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop, centered, with momentum", "Adagrad"])
@pytest.mark.parametrize("style", [OLD_STYLE, NEW_STYLE])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_optimizers_in_an_hdf5_file_of_keras_2_are_found(tmp_path, name, style):
    import tf_keras as keras

    make, make_torch, _, _ = KERAS_CASES[name]
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")])
    optimizer = make(keras.optimizers.legacy if style == OLD_STYLE else keras.optimizers)
    model.compile(optimizer, "mse")
    model.fit(np.ones((8, 3), "f4"), np.ones((8, 2), "f4"), epochs=3, verbose=0)
    path = str(tmp_path / "model.h5")
    model.save(path)
    twin = nn.Module()
    twin.d = nn.Linear(3, 2)
    mine = make_torch(twin.parameters())
    report = tws.warm_start(twin, WarmStartSettings(path, EVERYTHING), optimizer=mine)
    assert not report.missing_keys
    every = (
        [np.asarray(v) for v in optimizer.variables() if v.shape == (3, 2)]
        if (style == OLD_STYLE)
        else [np.asarray(v) for v in optimizer.variables if v.shape == (3, 2)]
    )
    scale = {"momentum_buffer": -LR if name == "SGD" else LR}
    for slot, value in mine.state[twin.d.weight].items():
        if value.ndim:
            theirs = value.t().numpy() * scale.get(slot, 1)
            assert any(np.allclose(theirs, one, rtol=1e-6) for one in every), slot
    assert mine.state[twin.d.weight].get("step", 3) == 3


# -- checkpoints of public projects ----------------------------------------------------------------

REAL = {  # by folder: kind, and how many variables have slots
    "mlnet-cifar-ckpt/model.ckpt": ("Adam", 4),
    "mlnet-mnist-conv/variables/variables": ("Momentum", 10),
    "keras-bert-toy/bert_model.ckpt": ("Adam", 46),
    "mtcnn-pnet/PNet-18": ("Momentum", 15),
    "wide-deep-contrib/model.ckpt-6000": ("Adagrad", 10),
    "iris-contrib/model.ckpt-8000": ("Adagrad", 8),
    "linear-ftrl/model.ckpt-5000": ("Ftrl", 13),
    "tfx-taxi-2019/model.ckpt-10000": ("Adagrad", 10),
    "tfx-iris-tuner/checkpoint": ("Adam", 8),
    "lso-ckpt-tf22/ckpt": ("SGD", 2),
    "mnist-cnn-2shard/model.ckpt": ("Adam", 10),
    "tfnet-lstm/variables/variables": ("Adam", 5),
    "acrobot-v1/model.ckpt": ("Adam", 10),
    "nxt-v1/model.ckpt": ("Adam", 4),
}


@pytest.mark.skipif(not FOLDER, reason="TORCH_WARMSTART_CHECKPOINTS names no folder")
@pytest.mark.parametrize("prefix", REAL)
def test_slots_of_real_checkpoints_are_tied_to_their_variables(prefix):
    from torch_warmstart.slots.tensorflow.index import SlotIndex

    kind, count = REAL[prefix]
    with tws.load_checkpoint(str(Path(FOLDER) / prefix)) as checkpoint:
        index = SlotIndex(checkpoint)
        found = [index.of(key) for key in checkpoint]
        assert sum(len(kept) == 1 and kept[0].kind == kind for kept in found) == count
        for key in checkpoint:
            for kept in index.of(key):
                shapes = {checkpoint.spec(slot).shape for slot in kept.slots.values()}
                assert shapes == {checkpoint.spec(key).shape}


@pytest.mark.skipif(not FOLDER, reason="TORCH_WARMSTART_CHECKPOINTS names no folder")
@pytest.mark.parametrize(
    ("prefix", "variable"),
    [
        ("acrobot-v1/model.ckpt", "policy/Stack/fully_connected_1/biases"),
        ("sts-image/variables/variables", "conv1/bias"),
        ("mlnet-cifar-ckpt/model.ckpt", "b1"),
    ],
)
def test_real_powers_tell_the_steps(prefix, variable):
    path = str(Path(FOLDER) / prefix)
    with tws.load_checkpoint(path) as checkpoint:
        model = One(checkpoint.spec(variable).shape)
        slots = [key for key in checkpoint if key.endswith(f"{variable}/Adam_1")]
        wanted = checkpoint.get_tensor(slots[0])
    optimizer = torch.optim.Adam(model.parameters())
    settings = WarmStartSettings(path, EVERYTHING, var_name_to_prev_var_name={"w": variable})
    tws.warm_start(model, settings, optimizer=optimizer)
    state = optimizer.state[model.w]
    assert torch.equal(state["exp_avg_sq"], wanted)
    assert state["step"] >= 1
    assert float(state["step"]).is_integer()


@pytest.mark.skipif(not FOLDER, reason="TORCH_WARMSTART_CHECKPOINTS names no folder")
def test_real_powers_that_have_become_0_are_refused():
    path = str(Path(FOLDER) / "nxt-v1/model.ckpt")
    model = One((10,))
    optimizer = torch.optim.Adam(model.parameters())
    settings = WarmStartSettings(path, EVERYTHING, var_name_to_prev_var_name={"w": "mbias"})
    with pytest.raises(UnsupportedError, match="have become 0 after many steps"):
        tws.warm_start(model, settings, optimizer=optimizer)
    assert not model.w.any()
