"""Which names are an optimizer's: every class whose slots are known, as each writer spells them."""

from __future__ import annotations

import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle

import torch_warmstart as tws
from torch_warmstart.layouts.tensorflow import optimizers
from torch_warmstart.layouts.tensorflow.optimizers import is_optimizer_state, is_slot
from torch_warmstart.slots.tensorflow.index import SlotIndex

V = "net/den/kernel"
VALUE = ".ATTRIBUTES/VARIABLE_VALUE"
KERAS = {kind: words for kind, words in optimizers._WORDS.items() if kind != "Momentum"}


def _tf1():
    for name, (_, by_count) in optimizers.TF1_OPTIMIZERS.items():
        for number in range(2 * max(by_count)):  # of a second optimizer too
            last = f"{name}_{number}" if number else name
            yield from (f"{V}/{last}", f"scope/{V}/{last}", f"{V}/part_0/{last}", f"{V}/{last}:0")


def _keras():
    for kind, quantities in KERAS.items():
        for word in (word for words in quantities.values() for word in words):
            for name in (kind, kind.lower(), f"{kind}_1"):
                yield from (
                    f"{name}/{V}/{word}",
                    f"{name}/{word}/{V}",
                    f"training/{name}/{V}/{word}",
                )
            yield f"model/den/kernel/.OPTIMIZER_SLOT/optimizer/{word}/{VALUE}"
            yield f"optimizer/{word}/0/{VALUE}"
        for ending in optimizers._ENDINGS.get(kind, ()):
            name = f"{kind.lower()}/net_den_kernel_{ending}"
            yield from (
                name,
                f"optimizer_weights/{name}",
                f"optimizer_weights/{kind.lower()}_1/x_{ending}",
            )


SLOTS = {
    *_tf1(),
    *_keras(),
    *(f"{V}/{word}" for word in optimizers.BERT_WORDS),
    *(f"{V}_slot_{word}" for word in ("m", "v", "vr", "vc")),
    f"optimizer/_variables/2/{VALUE}",
    "optimizer/vars/2",
    "AdamW/m/den/kernel",
    "lamb/net_den_kernel_velocity",
}
STATE = {
    "global_step",
    "save_counter",
    "beta1_power",
    "scope/beta2_power_1",
    "adam/iteration",
    "adam/learning_rate",
    "Adam/iter",
    "optimizer/vars/0",
    "optimizer/vars/1",
}
OTHERS = {
    V,
    f"{V}:0",
    "Adam",
    "m/v",
    "net/linear/kernel",
    "net/rms/scale",
    "net/accumulator",
    "net/attention/v/kernel",
    "net/momentum_encoder/v/kernel",
    "net/den_momentum",
    "layer.exp_avg",
}


@pytest.mark.parametrize("name", sorted(SLOTS))
def test_a_slot_is_told_by_its_name(name):
    assert is_slot(name)
    assert is_optimizer_state(name)


@pytest.mark.parametrize("name", sorted(STATE))
def test_counts_and_rates_are_an_optimizers_state_and_no_slot(name):
    assert not is_slot(name)
    assert is_optimizer_state(name)


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_layers_tensor_is_none(name):
    assert not is_slot(name)
    assert not is_optimizer_state(name)


def test_a_momentum_encoder_is_no_optimizer_of_keras():
    assert not is_slot("momentum/layer_0/v/kernel")


def test_weights_that_are_kept_by_way_of_an_optimizer_are_no_slots():
    assert not is_slot(f"optimizer/_trainable_variables/0/{VALUE}")


@pytest.mark.parametrize("name", sorted(optimizers.TF1_OPTIMIZERS))
def test_what_is_tied_to_a_variable_is_told_by_its_name(name):
    class Keys(dict):
        def graph_optimizers(self):
            return ()

    count = max(optimizers.TF1_OPTIMIZERS[name][1])
    slots = [f"{V}/{name}_{n}" if n else f"{V}/{name}" for n in range(count)]
    (kept,) = SlotIndex(Keys.fromkeys([V, *slots])).of(V)
    assert sorted(kept.slots.values()) == sorted(slots)
    assert all(map(is_slot, slots))


@pytest.mark.parametrize("name", ["AdaMax", "ProximalAdagrad", "AdamW", "AdagradDA", "MomentumW"])
def test_the_report_counts_the_slots_of_every_optimizer(tmp_path, monkeypatch, name):
    from torch import nn

    monkeypatch.chdir(tmp_path)
    names = ["den/bias", f"den/bias/{name}", "den/kernel", f"den/kernel/{name}", "other/kernel"]
    shapes = {key: (2, 2) if "kernel" in key else (2,) for key in names}
    entries = [
        BundleEntry(k, DType.FLOAT, s, bytes(16 if len(s) == 2 else 8)) for k, s in shapes.items()
    ]
    write_bundle("c", entries)
    report = tws.warm_start(nn.ModuleDict({"den": nn.Linear(2, 2)}), "c")
    assert "3 keys of the checkpoint were not used, 2 of them optimizers' slots" in str(report)


def test_the_slots_of_mesh_tensorflow_are_no_part_of_a_layer():
    """As T5 was published: they lie beside a kernel, with the names that it begins with."""
    from torch import nn

    shapes = {"kernel": (2, 3), "kernel_slot_vr": (2,), "kernel_slot_vc": (3,)}
    shapes |= {"bias": (3,), "bias_slot_v": (3,)}
    source = {f"fc/{name}": torch.ones(shape) for name, shape in shapes.items()}
    report = tws.warm_start(nn.ModuleDict({"fc": nn.Linear(2, 3)}), source)
    assert not report.missing_keys
    assert "3 of them optimizers' slots" in str(report)
