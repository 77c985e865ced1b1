"""Layers of Flax, as Flax itself has computed them: torch's compute the same from its tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from trees import nested

import torch_warmstart as tws

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "flax_layers.npz")

LAYERS: dict[str, nn.Module] = {
    "dense": nn.Linear(4, 4),
    "conv": nn.Conv2d(4, 4, 3),
    "grouped": nn.Conv2d(4, 8, 3, groups=4),
    "transposed": nn.ConvTranspose2d(4, 4, 3, stride=2),
    "transposed_1d": nn.ConvTranspose1d(4, 4, 3),
    "widening": nn.ConvTranspose2d(4, 6, (3, 2)),
    "turned": nn.ConvTranspose2d(4, 6, (3, 2)),
    "batch_norm": nn.BatchNorm1d(4, momentum=0.01),
    "layer_norm": nn.LayerNorm(4, eps=1e-6),
    "group_norm": nn.GroupNorm(2, 4, eps=1e-6),
    "rms_norm": nn.RMSNorm(4, eps=1e-6),
    "embed": nn.Embedding(5, 4),
    "attention": nn.MultiheadAttention(8, 2, batch_first=True),
    "prelu": nn.PReLU(),
}


def _variables(case: str) -> dict[str, torch.Tensor]:
    """By collection, layer and name, with slashes between them."""
    keys = [key for key in RECORDED.files if key.startswith((f"{case}/params", f"{case}/batch"))]
    return {key.partition("/")[2]: torch.from_numpy(RECORDED[key]) for key in keys}


def _saved(case: str, structure: str, folder: Path) -> Any:
    flat = _variables(case)
    if structure == "nested":
        return nested(flat, "/")
    if structure == "dotted":
        flat = {key.replace("/", "."): value for key, value in flat.items()}
    metadata = {"format": "flax"} if structure == "said" else None
    safetensors.torch.save_file(flat, folder / "m.safetensors", metadata=metadata)
    return folder / "m.safetensors"


def _computed(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.MultiheadAttention):
        return layer(x, x, x)[0]
    if x.dim() > 2 and x.is_floating_point():  # channels last
        return layer(x.movedim(-1, 1)).movedim(1, -1)
    return layer(x)


@pytest.mark.parametrize("structure", ["flat", "said", "nested", "dotted"])
@pytest.mark.parametrize("case", LAYERS)
def test_torch_computes_what_flax_does(case: str, structure: str, tmp_path: Path) -> None:
    layer = LAYERS[case].eval()
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    model = nn.ModuleDict({"layer": layer})
    report = tws.warm_start(model, tws.WarmStartSettings(_saved(case, structure, tmp_path), [".*"]))
    x = torch.from_numpy(RECORDED[f"{case}/x"])
    with torch.no_grad():
        torch.testing.assert_close(_computed(layer, x), torch.from_numpy(RECORDED[f"{case}/y"]))
    assert not report.notes


def test_what_a_square_kernel_is_taken_for_is_told() -> None:
    def audits(case: str) -> str:
        settings = tws.WarmStartSettings(nested(_variables(case), "/"), [".*"])
        plan = tws.plan_warm_start(nn.ModuleDict({"layer": LAYERS[case]}), settings)
        return " ".join(map(str, plan.audits))

    assert "transpose_kernel=True" in audits("transposed")
    assert "transpose_kernel" not in audits("widening")


def _params(case: str, name: str) -> dict[str, torch.Tensor]:
    """Those below `params` alone, as a layer of that name."""
    beneath = f"{case}/params/layer/"
    keys = [key for key in RECORDED.files if key.startswith(beneath)]
    return {f"{name}/{key.removeprefix(beneath)}": torch.from_numpy(RECORDED[key]) for key in keys}


@pytest.mark.parametrize("form", [dict, lambda flat: nested(flat, "/")], ids=["flat", "nested"])
@pytest.mark.parametrize(
    ("case", "name", "is_told"),
    [
        ("transposed", "ConvTranspose_0", True),
        ("transposed_1d", "ConvTranspose_0", True),
        ("transposed", "up", False),
        ("widening", "up", True),  # by its shape
    ],
)
def test_without_params_in_front_names_or_shapes_tell(
    form: Any, case: str, name: str, is_told: bool
) -> None:
    layer, flat = LAYERS[case], _params(case, name)
    nn.init.zeros_(layer.weight)
    settings = tws.WarmStartSettings(form(flat), ".*")
    if not is_told:
        with pytest.warns(tws.WarmStartWarning, match="Keras's tensors from Flax's"):
            tws.warm_start(nn.ModuleDict({name: layer}), settings)
        settings = replace(settings, var_name_to_layout={f"{name}.weight": "conv_transpose_flax"})
    report = tws.warm_start(nn.ModuleDict({name: layer}), settings)
    assert not report.notes
    kernel, axes = flat[f"{name}/kernel"], range(layer.weight.dim() - 2)
    expected = kernel.flip([*axes]).permute(-2, -1, *axes)
    assert torch.equal(layer.weight, expected)


@pytest.mark.parametrize("wrap", [weight_norm, spectral_norm])
def test_what_the_names_leave_open_is_told_below_a_norm_too(wrap: Any) -> None:
    model = nn.ModuleDict({"up": wrap(nn.ConvTranspose2d(4, 4, 3, stride=2))})
    plan = tws.plan_warm_start(model, _params("transposed", "up"))
    assert [note.code for note in plan.notes] == ["layout-presumed"]


def test_defaults_to_compare_are_flax_s() -> None:
    norms = {"batch_norm": nn.BatchNorm1d, "layer_norm": nn.LayerNorm, "rms_norm": nn.RMSNorm}
    for case, kind in norms.items():
        layer = kind(4)
        settings = tws.WarmStartSettings(nested(_variables(case), "/"), [".*"])
        (audit,) = tws.plan_warm_start(nn.ModuleDict({"layer": layer}), settings).audits
        assert "Flax has" in str(audit)
        assert "Keras" not in str(audit)


@pytest.mark.parametrize("structure", ["flat", "dotted"])
def test_converted_it_says_whose_it_is(structure: str, tmp_path: Path) -> None:
    path = _saved("transposed", structure, tmp_path)
    tws.convert(path, tmp_path / "again.safetensors")
    with safetensors.safe_open(tmp_path / "again.safetensors", "pt") as file:
        assert file.metadata()["format"] == "flax"


def test_converted_it_says_nothing_that_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tws.convert(_params("transposed", "up"), path)
    with safetensors.safe_open(path, "pt") as file:
        assert "format" not in (file.metadata() or {})
    assert tws.load_checkpoint(path).family == "tensorflow_or_flax"


def test_torch_s_tensors_below_params_are_torch_s() -> None:
    layer = nn.ConvTranspose2d(4, 4, 3)
    model = nn.ModuleDict({"layer": nn.ConvTranspose2d(4, 4, 3)})
    state = {f"layer.{name}": value.clone() for name, value in layer.state_dict().items()}
    tws.warm_start(model, {"params": state})
    assert torch.equal(model["layer"].weight, layer.weight)


@pytest.mark.parametrize("wrap", [weight_norm, spectral_norm])
def test_a_kernel_below_a_norm_is_turned_round_too(wrap: Any) -> None:
    layer = wrap(nn.ConvTranspose2d(4, 4, 3, stride=2))
    settings = tws.WarmStartSettings(nested(_variables("transposed"), "/"), ".*")
    tws.warm_start(nn.ModuleDict({"layer": layer}), settings)
    kernel = torch.from_numpy(RECORDED["transposed/params/layer/kernel"])
    whole = layer.weight if wrap is weight_norm else layer.parametrizations.weight.original
    torch.testing.assert_close(whole.detach(), kernel.flip(0, 1).permute(2, 3, 0, 1))
