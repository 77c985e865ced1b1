"""Several threads and one model: one after the other, so that it is as the last one makes it."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import torch_warmstart as tws

PATIENCE = 0.5  # seconds in which another thread would be done if nothing held it up


class Asked(nn.Embedding):
    """Runs somebody's code while it is loaded or run."""

    do = None

    def asked(self) -> None:
        if self.do is not None:
            self.do()

    def _load_from_state_dict(self, state, prefix, *rest):
        self.asked()
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, rows):
        self.asked()
        return super().forward(rows)


def model_of(rows: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"first": nn.Linear(2, 2), "asked": Asked(rows, 3), "last": nn.Linear(2, 2)}
    )


def state_of(value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(old, value) for name, old in model_of(4).state_dict().items()}


def start(model: nn.Module) -> None:
    tws.warm_start(model, state_of(1.0))


def apply(model: nn.Module) -> None:
    tws.apply_plan(tws.plan_warm_start(model, state_of(1.0)))


def convert(model: nn.Module, path) -> None:
    tws.convert(state_of(1.0), path, model=model)


def verify(model: nn.Module) -> None:
    record = model["asked"].weight.detach().clone()
    assert tws.verify_port(model["asked"], torch.arange(4), record)


@pytest.mark.parametrize("work", ["warm_start", "apply_plan", "convert", "verify_port", "change"])
def test_who_comes_while_a_model_is_worked_on_waits(tmp_path, work) -> None:
    model = model_of(4)
    table = model["asked"]
    waited, threads = [], []

    def other() -> None:
        if threads:
            return
        thread = threading.Thread(target=lambda: tws.warm_start(whole, state))
        threads.append(thread)
        thread.start()
        thread.join(PATIENCE)
        waited.append(thread.is_alive())

    def begin(tensor: torch.Tensor) -> None:
        other()
        nn.init.ones_(tensor)

    whole, state = model, state_of(2.0)
    if work == "verify_port":
        whole, state = table, {"weight": torch.full((4, 3), 2.0)}
    if work == "change":
        state["asked.weight"] = torch.full((5, 3), 2.0)
    else:
        table.do = other
    {
        "warm_start": lambda: start(model),
        "apply_plan": lambda: apply(model),
        "convert": lambda: convert(model, tmp_path / "m.pt"),
        "verify_port": lambda: verify(model),
        "change": lambda: tws.change_vocabulary(
            model,
            {
                "asked.weight": tws.VocabInfo(
                    [*"abcde"], old_vocab=[*"abcd"], backup_initializer=begin
                )
            },
        ),
    }[work]()
    (thread,) = threads
    thread.join()
    assert waited == [True]
    assert all(bool((tensor == 2).all()) for tensor in whole.state_dict().values())
    if work == "convert":
        saved = torch.load(tmp_path / "m.pt")
        assert all(bool((tensor == 1).all()) for tensor in saved.values())


def test_other_models_do_not_wait() -> None:
    model, another = model_of(4), model_of(4)

    def other() -> None:
        thread = threading.Thread(target=lambda: start(another))
        thread.start()
        thread.join()  # for ever, if it waited

    model["asked"].do = other
    start(model)
    assert all(bool((tensor == 1).all()) for tensor in another.state_dict().values())
