"""A model and an optimizer as Lightning's Fabric has set them up, under their own names."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")

from lightning.fabric import Fabric
from small_trainings import Net, data, has_warm_slots, is_warm, settings, write_old

import torch_warmstart as tws


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_its_names_are_the_model_s_own(tmp_path, fabric, is_compiled):
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    given = torch.compile(net, backend="eager") if is_compiled else net
    model, prepared = fabric.setup(given, optimizer)
    old = write_old(tmp_path / "old.pt")
    report = tws.warm_start(model, settings(old), optimizer=prepared)
    assert is_warm(net)
    assert has_warm_slots(optimizer, net)
    assert report["head.weight"].names == ("head.weight",)
    for batch in data():
        fabric.backward((model(batch["ids"]) - batch["labels"]).square().mean())
        prepared.step()
    assert {float(slots["step"]) for slots in optimizer.state.values()} == {11.0}


def test_it_is_a_source_too(fabric):
    trained = fabric.setup(Net())
    for source in (trained, trained.state_dict()):
        net = Net()
        tws.warm_start(net, source)
        pairs = zip(net.parameters(), trained.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_load_hooks_within_it_see_what_they_would(fabric):
    seen = []
    net = Net()
    net.head.register_load_state_dict_post_hook(lambda module, _: seen.append(module.weight.sum()))
    old = {name: torch.ones_like(value) for name, value in net.state_dict().items()}
    tws.warm_start(fabric.setup(net), old)
    assert seen == [2.0]


def test_who_calls_children_so_without_fabric_has_both():
    """The second one was left out, and stayed as it was, wherever both names were there."""

    def made() -> torch.nn.Module:
        pair = {"_forward_module": torch.nn.Linear(2, 2), "_original_module": torch.nn.Linear(2, 3)}
        return torch.nn.ModuleDict(pair)

    model, old = made(), made()
    report = tws.warm_start(model, old.state_dict())
    assert report.unexpected_keys == ()
    assert torch.equal(model["_original_module"].weight, old["_original_module"].weight)
