"""Slots of TensorFlow's optimizers: steps, values and options in torch's terms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensorflow_slots_helpers import ADAM, EVERYTHING, M, One, V, powers, start
from torch import nn

import torch_warmstart as tws
from torch_warmstart import PlanError, UnsupportedError, VocabInfo, WarmStartSettings

# -- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 7, 500, 3_000, 60_000])
def test_powers_of_betas_tell_the_steps(tf_checkpoint, steps):
    assert start(tf_checkpoint({**ADAM, **powers(steps)})).state["step"] == steps


def test_steps_are_counted_by_the_powers_in_the_optimizers_scope(tf_checkpoint):
    scoped = {
        f"{scope}/{key}": value
        for scope, steps in (("policy", 3), ("value", 9))
        for key, value in powers(steps).items()
    }
    prefix = tf_checkpoint(
        {"policy/w": M, "policy/policy/w/Adam": M, "policy/policy/w/Adam_1": V, **scoped}
    )
    model = nn.Module()
    model.policy = One()
    assert start(prefix, model=model).state["step"] == 3


def test_powers_that_disagree_are_an_error_that_names_them(tf_checkpoint):
    more = {f"{key}_1": value for key, value in powers(9).items()}
    prefix = tf_checkpoint({**ADAM, **more})
    with pytest.raises(UnsupportedError, match="'beta1_power' means 5.*'beta1_power_1' means 9"):
        start(prefix)
    named = {"w/step": "beta1_power_1"}
    assert start(prefix, var_name_to_prev_var_name=named).state["step"] == 9


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
    more = {f"{key}_1": value for key, value in powers(9, (0.5, 0.999)).items()}
    prefix = tf_checkpoint({**ADAM, **more})  # as a generator and its discriminator have them
    assert start(prefix).state["step"] == 5
    assert start(prefix, betas=(0.5, 0.999)).state["step"] == 9
    with pytest.raises(UnsupportedError) as error:
        start(prefix, betas=(0.8, 0.999))
    assert str(error.value).endswith(
        "which is no power of 0.8, torch's beta: the checkpoint was trained with other betas. Give "
        "the optimizer the checkpoint's betas, or name what counts its steps, as 'beta1_power_1' "
        "or 'beta2_power' or 'beta2_power_1' may: "
        "var_name_to_prev_var_name={'w/step': 'beta1_power_1'}."
    )
    prefix = tf_checkpoint({**ADAM, "train/global_step": np.int64(3)})
    with pytest.raises(UnsupportedError, match=r"as 'train/global_step' may: .*'train/global_s"):
        start(prefix, betas=(0.8, 0.999))


def test_a_schedule_of_betas_leaves_the_other_beta(tf_checkpoint):
    """As OneCycleLR does when it is made."""
    with pytest.raises(UnsupportedError, match="steps, as 'beta2_power' may") as error:
        start(tf_checkpoint(ADAM), betas=(0.95, 0.999))
    assert str(error.value).endswith("var_name_to_prev_var_name={'w/step': 'beta2_power'}.")
    names = {"w/step": "beta2_power"}
    started = start(tf_checkpoint(ADAM), betas=(0.95, 0.999), var_name_to_prev_var_name=names)
    assert started.state["step"] == 5
    with pytest.raises(UnsupportedError, match=r"Give the optimizer the checkpoint's betas\.$"):
        start(
            tf_checkpoint(ADAM),
            betas=(0.95, 0.999),
            var_name_to_prev_var_name={"w/step": "beta1_power"},
        )


def test_optimizers_that_took_the_same_steps_need_no_names(tf_checkpoint):
    more = {f"{key}_1": value for key, value in powers(5).items()}
    assert start(tf_checkpoint({**ADAM, **more})).state["step"] == 5


def test_other_betas_are_fine_once_a_count_of_steps_is_named(tf_checkpoint):
    prefix = tf_checkpoint({**ADAM, "global_step": np.int64(6)})
    named = {"w/step": "global_step"}
    started = start(prefix, betas=(0.5, 0.9), var_name_to_prev_var_name=named)
    assert started.state["step"] == 6


def test_powers_that_have_become_0_leave_the_global_step(tf_checkpoint):
    gone = {"beta1_power": np.float32(0), "beta2_power": np.float32(1e-42)}
    with pytest.raises(UnsupportedError, match="have become 0 after many steps"):
        start(tf_checkpoint({**ADAM, **gone}))
    prefix = tf_checkpoint({**ADAM, **gone, "global_step": np.int64(1_000_000)})
    assert start(prefix).state["step"] == 1_000_000


def test_steps_that_nothing_counts_are_an_error_that_asks_for_a_name(tf_checkpoint):
    with pytest.raises(PlanError, match="nothing there counts the steps of Adam"):
        start(tf_checkpoint({"w": M, "w/Adam": M, "w/Adam_1": V}))


def test_nadams_product_is_worked_out_from_adams_steps(tf_checkpoint):
    started = start(tf_checkpoint(ADAM), torch.optim.NAdam)
    wanted = np.prod([0.9 * (1 - 0.5 * 0.96 ** (step * 4e-3)) for step in range(1, 6)])
    assert float(started.state["mu_product"]) == pytest.approx(wanted)


def test_an_optimizer_without_a_count_keeps_torchs(tf_checkpoint):
    report = start(tf_checkpoint({"w": M, "w/Adagrad": V}), torch.optim.Adagrad).report
    assert report["w/step"].reason == "TensorFlow 1's Adagrad counts no steps"


# -- values and options ----------------------------------------------------------------------------


def test_a_momentum_with_the_learning_rate_in_it_is_divided_by_torchs(tf_checkpoint):
    prefix = tf_checkpoint({"w": M, "SGD/w/momentum": V, "SGD/iter": np.int64(3)})
    started = start(prefix, torch.optim.SGD, lr=0.5, momentum=0.9)
    assert started.state["momentum_buffer"].tolist() == [-8, -10, -12]
    assert any("divided by torch's lr as it is now (0.5)" in str(n) for n in started.report.notes)
    renamed = {"w/momentum_buffer": "SGD/w/momentum"}
    again = start(
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
        start(prefix, torch.optim.SGD, lr=0.0, momentum=0.9)


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
    started = start(tf_checkpoint(ADAM), optimizer)
    assert started.state["exp_avg"].tolist() == M
    assert any("by its own rule" in str(note) for note in started.report.notes)


def test_sparse_adam_goes_on_with_adams_averages(tf_checkpoint):
    started = start(tf_checkpoint(ADAM), torch.optim.SparseAdam)
    assert started.state["exp_avg_sq"].tolist() == V
    assert started.state["step"] == 5


def test_an_option_that_tensorflow_did_not_use_begins_as_torch_begins_it(tf_checkpoint):
    prefix = tf_checkpoint({"w": M, "w/RMSProp": V, "w/RMSProp_1": M})
    started = start(prefix, torch.optim.RMSprop, centered=True, momentum=0.9, lr=0.5)
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
    started = start(tf_checkpoint({**values, **slots, **powers(2)}), model=model)
    state = started.optimizer.state
    for weight in (model.lstm.weight_ih_l0, model.lstm.weight_hh_l0, model.lstm.bias_ih_l0):
        assert torch.equal(state[weight]["exp_avg"], weight)
    biases = [state[model.lstm.bias_ih_l0], state[model.lstm.bias_hh_l0]]
    assert torch.equal(biases[0]["exp_avg_sq"], biases[1]["exp_avg_sq"])
    assert any("two biases" in str(note) for note in started.report.notes)
