"""Slots of TensorFlow's optimizers: found under every name they have had."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensorflow_slots_helpers import ADAM, EVERYTHING, M, One, V, powers, start
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, WarmStartSettings

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
    steps = {"training/Adam/iter": np.int64(5)} if keras else powers(5)
    if "optimizer_weights/Adam/m/w" in slots:
        steps = {"optimizer_weights/iteration": np.int64(5)}
    started = start(tf_checkpoint({"w": [7.0, 8.0, 9.0], **slots, **steps}))
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
            **powers(3),
        }
    )
    with pytest.raises(PlanError, match="no optimizer's slots for 'w'"):
        start(prefix)


def test_bert_has_its_own_names_and_counts_by_the_global_step(tf_checkpoint):
    prefix = tf_checkpoint(
        {"w": [0.0] * 3, "w/adam_m": M, "w/adam_v": V, "global_step": np.int64(20)}
    )
    started = start(prefix, torch.optim.AdamW)
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
        start(prefix)
    assert "'w/Adam' and 'w/Adam_2'" in str(error.value)
    assert "var_name_to_prev_var_name={'w/exp_avg': 'w/Adam'}" in str(error.value)
    names = {"w/exp_avg": "w/Adam_2", "w/exp_avg_sq": "w/Adam_3", "w/step": "beta1_power"}
    started = start(prefix, var_name_to_prev_var_name=names)
    assert started.state["exp_avg"].tolist() == V
    assert started.state["step"] == 5


def test_slots_in_several_scopes_are_an_error_that_names_them(tf_checkpoint):
    prefix = tf_checkpoint({**ADAM, "opt/w/Adam": M, "opt/w/Adam_1": V})
    with pytest.raises(PlanError, match="'w/Adam' and 'opt/w/Adam'|'opt/w/Adam' and 'w/Adam'"):
        start(prefix)


def test_a_slot_of_another_shape_is_not_taken(tf_checkpoint):
    with pytest.raises(PlanError, match="have other shapes than 'w'"):
        start(tf_checkpoint({**ADAM, "w/Adam": [1.0, 2.0]}))


def test_a_mismatch_of_optimizers_says_what_the_checkpoint_has(tf_checkpoint):
    prefix = tf_checkpoint({"w": [0.0] * 3, "w/Adagrad": M})
    with pytest.raises(PlanError) as error:
        start(prefix)
    assert "has slots of Adagrad for that variable; Adam cannot go on" in str(error.value)
    assert len(error.value.problems) == 3
    assert start(prefix, on_missing="keep").state == {}


def test_a_mismatch_of_optimizers_is_said_once_for_all_variables(tf_checkpoint):
    tensors = {f"{name}{slot}": M for name in "uvw" for slot in ("", "/Adagrad")}
    model = torch.nn.ParameterDict({name: torch.zeros(3) for name in "uvw"})
    with pytest.raises(PlanError) as error:
        tws.warm_start(
            model, tf_checkpoint(tensors), optimizer=torch.optim.Adam(model.parameters())
        )
    assert str(error.value).count("cannot go on from those") == 1
    assert len(error.value.problems) == 9


@pytest.mark.parametrize("slots", [["w/Ftrl", "w/Ftrl_1"], ["w/AdagradDA", "w/AdagradDA_1"]])
def test_what_torch_has_no_like_of_is_refused(tf_checkpoint, slots):
    prefix = tf_checkpoint({"w": [0.0] * 3, **dict.fromkeys(slots, M)})
    with pytest.raises(PlanError, match=slots[0].partition("/")[2]):
        start(prefix, torch.optim.Adagrad)


def test_half_of_an_optimizers_slots_is_an_error(tf_checkpoint):
    with pytest.raises(PlanError, match="of Adam's slots for 'w' has only 'w/Adam'"):
        start(tf_checkpoint({"w": [0.0] * 3, "w/Adam": M, **powers(1)}))


def test_half_of_an_optimizers_slots_is_not_taken(tf_checkpoint):
    prefix = tf_checkpoint({"w": [1.0] * 3, "w/Adam": M, **powers(50)})
    started = start(prefix, on_missing="keep")
    assert started.state == {}  # no count of steps either
    assert started.model.w.tolist() == [1.0] * 3
    assert started.report["w/exp_avg"].reason == "the rest of its state is not taken"
    assert tuple(map(str, started.report.notes)) == (
        "The optimizer's state of 1 parameter (such as 'w') stays as it is, with all of its slots, "
        "as parts of a state do not go together: w/exp_avg_sq is not in the checkpoint, which of "
        "Adam's slots for 'w' has only 'w/Adam'.",
    )


NOT_TIED = {
    "a name of its own": ({"w/mine": M}, "'w/mine'", "'w/mine'"),
    "a .keras file": (
        {"optimizer/vars/0": np.int64(5), "optimizer/vars/2": M},
        "'optimizer/vars/2'",
        "...",  # a number says neither whose it is nor what
    ),
    "two variables of one name": (
        {
            "a_b/w": M,
            "a/b_w": M,
            "optimizer_weights/adam/a_b_w_momentum": M,
            "optimizer_weights/adam/a_b_w_velocity": M,
        },
        "'optimizer_weights/adam/a_b_w_momentum' and 1 other",
        "...",  # it is that of another variable
    ),
}


@pytest.mark.parametrize(("tensors", "shown", "example"), NOT_TIED.values(), ids=NOT_TIED)
def test_slots_that_cannot_be_tied_are_said_to_be_there_once(
    tf_checkpoint, tensors, shown, example
):
    prefix = tf_checkpoint({"w": [0.0] * 3, **tensors})
    with pytest.raises(PlanError) as error:
        start(prefix)
    assert tuple(map(str, error.value.problems)) == (
        f"{prefix} has an optimizer's variables ({shown}), but which is whose, or what it means, "
        "cannot be known. Name the key of each slot, for example "
        f"var_name_to_prev_var_name={{'w/exp_avg': {example}}}, or leave the slots out by a "
        "list in vars_to_warm_start.",
    )
    assert "suggest_names" not in str(error.value)


def test_averages_of_weights_are_no_optimizers_slots(tf_checkpoint):
    prefix = tf_checkpoint({"w": M, "w/ExponentialMovingAverage": M})
    started = start(prefix)
    codes = [note.code for note in started.report.notes]
    assert codes == ["averages-left-behind", "no-optimizer-state"]
    assert started.state == {}


def test_a_momentum_that_nothing_explains_is_taken_as_it_is_and_noted(tf_checkpoint):
    prefix = tf_checkpoint({"w": M, "w/mine": V})
    names = {"w/momentum_buffer": "w/mine"}
    options = {"lr": 0.1, "momentum": 0.9, "var_name_to_prev_var_name": names}
    started = start(prefix, torch.optim.SGD, **options)
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
    started = start(prefix, make, model)
    sign = -1 if name == "sgd" else 1
    for word, slot in slots.items():
        assert started.state[slot].tolist() == [sign * value for value in values[word]]
    assert started.state.get("step", 5) == 5


def test_a_parameter_that_is_frozen_on_both_sides_needs_no_slots(tf_checkpoint):
    prefix = tf_checkpoint({"old": [1.0, 2.0, 3.0], **ADAM})
    model = One()
    model.old = nn.Parameter(torch.zeros(3), requires_grad=False)
    started = start(prefix, model=model)
    assert started.state["exp_avg"].tolist() == M
    assert model.old.tolist() == [1.0, 2.0, 3.0]
    assert not started.optimizer.state[model.old]
    assert "frozen" in started.report["old/exp_avg"].reason
    model.old.requires_grad_(True)
    with pytest.raises(PlanError, match="no optimizer's slots for 'old'"):
        start(prefix, model=model)


def test_an_optimizer_without_a_counterpart_keeps_its_state(tf_checkpoint):
    report = start(tf_checkpoint(ADAM), torch.optim.ASGD).report
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
        start(prefix, Mine)
    started = start(prefix, Mine, var_name_to_prev_var_name={"w/mean": "w/Adam"})
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


# -- Adafactor's factors ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (3, 3)], ids=str)
@pytest.mark.parametrize("writer", ["mesh", "tensor2tensor"])
def test_the_factors_of_adafactor_are_those_of_the_same_axes(shape, writer):
    """Tensor2tensor's are means over the last axis and the one before; Mesh's over the larger."""
    rows = torch.rand(shape[0])  # a mean over the columns of the kernel, [in, out]
    columns = torch.rand(shape[1])
    of_mesh = (columns, rows) if shape[0] >= shape[1] else (rows, columns)
    names = ("/Adafactor", "/Adafactor_1", "/Adafactor")
    first, second = rows, columns
    if writer == "mesh":
        names, (first, second) = ("_slot_vr", "_slot_vc", "_slot_v"), of_mesh
    source = {"fc/kernel": torch.rand(shape), "fc/bias": torch.rand(shape[1])}
    source |= {f"fc/kernel{names[0]}": first, f"fc/kernel{names[1]}": second}
    source |= {f"fc/bias{names[2]}": torch.rand(shape[1]), "global_step": torch.tensor(7)}
    model = nn.ModuleDict({"fc": nn.Linear(*shape)})
    optimizer = torch.optim.Adafactor(model.parameters())
    tws.warm_start(model, source, optimizer=optimizer)
    weight, bias = (optimizer.state[p] for p in model["fc"].parameters())
    assert torch.equal(weight["row_var"].flatten(), columns)
    assert torch.equal(weight["col_var"].flatten(), rows)
    assert torch.equal(bias["variance"], source[f"fc/bias{names[2]}"])
    assert {float(state["step"]) for state in (weight, bias)} == {7}
