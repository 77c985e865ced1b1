"""`WarmStartCallback` with transformers' own Trainer, and the helper for Accelerate."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("accelerate")

from accelerate import Accelerator, cpu_offload, disk_offload, dispatch_model
from safetensors.torch import load_file
from small_trainings import (
    Net,
    data,
    has_warm_slots,
    huggingface_trainer,
    is_warm,
    settings,
    small_model,
    write_old,
)
from torch import nn
from transformers import TrainerCallback

import torch_warmstart as tws
from torch_warmstart.integrations import accelerate
from torch_warmstart.integrations.transformers import WarmStartCallback

PREFIX = "net."


class Watch(TrainerCallback):
    """What the model is when the first step begins; comes after the one that is tested."""

    def __init__(self):
        self.was_warm, self.had_warm_slots, self.first = [], [], []

    def on_train_begin(self, args, state, control, model, optimizer, **others):
        self.was_warm.append(is_warm(model.net))
        self.first.append({name: value.clone() for name, value in model.state_dict().items()})
        own = optimizer.optimizer
        self.had_warm_slots.append(bool(own.state) and has_warm_slots(own, model.net))


@pytest.fixture
def old(tmp_path):
    return write_old(tmp_path / "old.pt", PREFIX)


def test_model_and_optimizer_are_warm_when_the_first_step_begins(tmp_path, old):
    callback, watch = WarmStartCallback(settings(old, PREFIX), optimizer=True), Watch()
    model = small_model()
    huggingface_trainer(tmp_path, model, [callback, watch], weight_decay=0.0).train()
    assert watch.was_warm == watch.had_warm_slots == [True]
    assert callback.report["net.table.weight"].rows.initialised == 2
    assert not is_warm(model.net)  # it has trained


def test_a_run_that_resumes_is_not_warm_started_again(tmp_path, old):
    huggingface_trainer(tmp_path, small_model(), [WarmStartCallback(settings(old, PREFIX))]).train()
    callback, watch = WarmStartCallback(settings(old, PREFIX), optimizer=True), Watch()
    trainer = huggingface_trainer(tmp_path, small_model(), [callback, watch])
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert trainer.state.global_step == 2
    assert callback.report is None
    saved = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    assert watch.first[0].keys() == saved.keys()
    assert all(torch.equal(watch.first[0][name], value) for name, value in saved.items())


def test_a_second_train_goes_on(tmp_path, old):
    callback, watch = WarmStartCallback(settings(old, PREFIX)), Watch()
    trainer = huggingface_trainer(tmp_path, small_model(), [callback, watch])
    trainer.train()
    trainer.train()
    assert watch.was_warm == [True, False]
    assert watch.had_warm_slots == [False, False]


# -- Accelerate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_prepared", [False, True])
def test_with_accelerate_before_or_after_prepare(tmp_path, is_prepared):
    old = write_old(tmp_path / "plain.pt")
    accelerator, net = Accelerator(cpu=True), Net()
    optimizer = torch.optim.Adam(net.parameters())
    model, prepared = accelerator.prepare(net, optimizer) if is_prepared else (net, optimizer)
    report = accelerate.warm_start(accelerator, model, settings(old), optimizer=prepared)
    assert is_warm(net)
    assert has_warm_slots(optimizer, net)
    assert report["table.weight"].rows.copied == 2
    model, prepared, batches = accelerator.prepare(net, optimizer, data())
    for batch in batches:  # the loop goes on from there
        accelerator.backward(model(batch["ids"]).sum())
        prepared.step()
    assert {float(slots["step"]) for slots in optimizer.state.values()} == {11.0}


def to_disk(model, **more):
    return disk_offload(model, "offloaded", **more)


@pytest.mark.parametrize("offload", [cpu_offload, to_disk])
def test_what_accelerate_offloads_is_refused(tmp_path, monkeypatch, offload):
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    old = {name: value + 1 for name, value in net.state_dict().items()}
    offloaded = offload(copy.deepcopy(net), execution_device=torch.device("cpu"))
    with pytest.raises(tws.UnsupportedError, match=r"0 is offloaded by accelerate.*before cpu_off"):
        tws.warm_start(offloaded, old)
    batch = torch.ones(3, 2)
    assert torch.equal(offloaded(batch), net(batch))


def test_what_accelerate_only_puts_on_a_device_is_filled():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    old = {name: value + 1 for name, value in net.state_dict().items()}
    dispatched = dispatch_model(net, {"": "cpu"}, force_hooks=True)
    tws.warm_start(dispatched, old)
    assert all(torch.equal(value, old[name]) for name, value in dispatched.state_dict().items())
