"""Who wrote the tensors of a neutral format is read from its content."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import torch_warmstart as tws
from torch_warmstart.formats.families import family_of


@pytest.mark.parametrize(
    ("keys", "said", "family"),
    [
        (["enc/dense/kernel:0"], None, "tensorflow"),
        (["enc.dense.weight"], "tf", "tensorflow"),
        (["enc.dense.kernel"], "pt", "torch"),
        (["params.Dense_0.kernel"], "flax", "flax"),
        (["Dense_0.kernel"], "flax", "flax"),
        (["params.Dense_0.kernel", "step"], None, "flax"),
        (["params/a/embedding", "batch_stats/b/mean"], None, "flax"),
        (["params.Dense_0.kernel", "other.kernel"], None, "flax"),
        (["params.dense.kernel", "other.kernel"], None, "tensorflow_or_flax"),
        (["Conv_0.kernel", "BatchNorm_0.scale"], None, "flax"),
        (["Block_0/LayerNorm_0/scale", "Block_0/gain"], None, "flax"),
        (["SelfAttention_0/query/kernel"], None, "flax"),
        (["Conv_0.kernel", "Conv_0.weight"], None, "torch"),
        (["Conv_0.weights", "Conv_0.biases"], None, "torch"),
        (["Conv_0.kernel", "scaled/gamma"], None, "tensorflow_or_flax"),
        (["Conv_1.kernel", "Conv_1_bn/gamma"], None, "tensorflow"),
        (["conv2d_transpose_1.kernel", "up.kernel"], None, "tensorflow"),
        (["params.conv.weight", "params.conv.bias"], None, "torch"),
        (["params.log_std"], None, "torch"),
        (["a/kernel", "a/bias"], None, "tensorflow_or_flax"),
        (["a/scale", "a/bias"], None, "torch"),
        (["emb/embeddings"], None, "tensorflow"),
        (["a.weight", "LayerNorm.gamma"], None, "torch"),
        (["a.weight"], None, "torch"),
        (["a.weight"], "mlx", "mlx"),
        (["a.weight"], "pd", "paddle"),
        ([], None, "torch"),
    ],
)
def test_by_what_is_said_and_by_names(keys, said, family):
    assert family_of(keys, said) == family


@pytest.fixture
def square():
    return torch.randn(3, 3), torch.randn(3)


def model():
    return nn.ModuleDict({"enc": nn.ModuleDict({"dense": nn.Linear(3, 3)})})


@pytest.mark.parametrize("ending", ["", ":0"])
@pytest.mark.parametrize("kind", ["safetensors", "npz", "dict"])
def test_a_square_kernel_of_tensorflow_is_transposed(kind, ending, square, tmp_path):
    weight, bias = square
    state = {f"enc/dense/kernel{ending}": weight, f"enc/dense/bias{ending}": bias}
    source = state
    if kind == "safetensors":
        source = str(tmp_path / "m.safetensors")
        save_file(state, source, metadata={"format": "tf"})
    elif kind == "npz":
        source = str(tmp_path / "m.npz")
        np.savez(source, **{key: value.numpy() for key, value in state.items()})
    ported = model()
    tws.warm_start(ported, source)
    assert torch.equal(ported["enc"]["dense"].weight, weight.t())
    assert torch.equal(ported["enc"]["dense"].bias, bias)


def test_a_modules_own_state_is_torchs_whatever_its_names():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(3, 3))

    old, new = nn.ModuleDict({"own": Own()}), nn.ModuleDict({"own": Own()})
    tws.warm_start(new, old.state_dict())
    assert torch.equal(new["own"].kernel, old["own"].kernel)
    assert tws.load_checkpoint(old.state_dict()).family == "torch"


def test_a_table_in_parts_is_one_table():
    parts = {f"shared/weights_{n}": torch.randn(2 if n < 14 else 1, 4) for n in range(16)}
    whole = torch.cat(list(parts.values()))
    state = {**parts, "out/kernel": torch.randn(4, 2)}
    by_itself, by_rule = nn.ModuleDict({"shared": nn.Embedding(30, 4)}), nn.Embedding(30, 4)
    tws.warm_start(by_itself, state)
    assert torch.equal(by_itself["shared"].weight, whole)
    settings = tws.WarmStartSettings(state, var_name_to_prev_var_name={"weight": list(parts)})
    tws.warm_start(by_rule, settings)
    assert torch.equal(by_rule.weight, whole)


CONVOLUTIONS = [
    (nn.Conv1d(3, 4, 3), [4, 3, 3], (0, 2, 1)),
    (nn.Conv2d(3, 4, 3), [4, 3, 3, 3], (0, 3, 1, 2)),
    (nn.Conv2d(4, 4, 1, groups=4), [4, 1, 1, 1], (0, 3, 1, 2)),
    (nn.Conv3d(2, 3, 2), [3, 2, 2, 2, 2], (0, 4, 1, 2, 3)),
    (nn.ConvTranspose2d(3, 3, 3), [3, 3, 3, 3], (3, 0, 1, 2)),
]


@pytest.mark.parametrize("in_shards", [False, True])
@pytest.mark.parametrize(("module", "shape", "order"), CONVOLUTIONS)
def test_convolutions_of_mlx_have_their_channels_last(module, shape, order, in_shards, tmp_path):
    kernel, square = torch.randn(shape), torch.randn(4, 4)
    state = {"conv.weight": kernel, "conv.bias": module.bias.detach(), "fc.weight": square}
    name = "model-00001-of-00001.safetensors" if in_shards else "model.safetensors"
    save_file(state, tmp_path / name, metadata={"format": "mlx"})
    if in_shards:
        index = {"metadata": {}, "weight_map": dict.fromkeys(state, name)}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    model = nn.ModuleDict({"conv": module, "fc": nn.Linear(4, 4, bias=False)})
    tws.warm_start(model, str(tmp_path))
    assert torch.equal(module.weight, kernel.permute(order))
    assert torch.equal(model["fc"].weight, square)


@pytest.mark.parametrize("in_shards", [False, True])
@pytest.mark.parametrize(
    ("key", "said", "family"),
    [
        ("enc.dense.kernel", "pt", "torch"),
        ("enc.dense.weight", "tf", "tensorflow"),
        ("enc.dense.kernel", "jax", "tensorflow_or_flax"),
    ],
)
def test_shards_are_whose_their_header_says(key, said, family, in_shards, tmp_path):
    name = "model-00001-of-00001.safetensors" if in_shards else "model.safetensors"
    save_file({key: torch.randn(3, 3)}, tmp_path / name, metadata={"format": said})
    if in_shards:
        index = {"metadata": {}, "weight_map": {key: name}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert tws.load_checkpoint(tmp_path).family == family


@pytest.mark.parametrize(("first", "second"), [("pt", "tf"), ("tf", "pt"), ("mlx", "pt")])
def test_shards_that_contradict_each_other_are_refused(first, second, tmp_path):
    names = {"a.weight": "a.safetensors", "b.weight": "b.safetensors"}
    for (key, name), said in zip(names.items(), (first, second), strict=True):
        save_file({key: torch.randn(3, 3)}, tmp_path / name, metadata={"format": said})
    index = {"metadata": {}, "weight_map": names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    wanted = nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in "ab"})
    with pytest.raises(tws.CorruptCheckpointError, match=f"format='{first}', and b.* '{second}'"):
        tws.warm_start(wanted, tmp_path)


def test_a_shard_that_says_nothing_contradicts_none(tmp_path):
    names = {"a.kernel": "a.safetensors", "b.kernel": "b.safetensors"}
    kernels = {key: torch.randn(3, 3) for key in names}
    save_file({"a.kernel": kernels["a.kernel"]}, tmp_path / "a.safetensors")
    metadata = {"format": "tf"}
    save_file({"b.kernel": kernels["b.kernel"]}, tmp_path / "b.safetensors", metadata=metadata)
    index = {"metadata": {}, "weight_map": names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    wanted = nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in "ab"})
    tws.warm_start(wanted, tmp_path)
    assert torch.equal(wanted["a"].weight, kernels["a.kernel"].t())


def test_a_file_of_mlx_is_written_as_one(tmp_path):
    save_file(
        {"conv.weight": torch.randn(4, 3, 3, 3)},
        tmp_path / "in.safetensors",
        metadata={"format": "mlx"},
    )
    tws.convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    assert tws.load_checkpoint(tmp_path / "out.safetensors").family == "mlx"
    with pytest.raises(tws.SettingsError, match="laid out as in mlx"):
        tws.convert(tmp_path / "in.safetensors", tmp_path / "out.pt")


def test_linear_layers_of_paddle_are_transposed_and_convolutions_are_not(square, tmp_path):
    weight, bias = square
    kernel = torch.randn(3, 3, 3, 3)
    state = {"fc.weight": weight, "fc.bias": bias, "conv.weight": kernel, "conv.bias": bias.clone()}
    save_file(state, tmp_path / "m.safetensors", metadata={"format": "pd"})
    ported = nn.ModuleDict({"fc": nn.Linear(3, 3), "conv": nn.Conv2d(3, 3, 3)})
    tws.warm_start(ported, str(tmp_path / "m.safetensors"))
    assert torch.equal(ported["fc"].weight, weight.t())
    assert torch.equal(ported["conv"].weight, kernel)


def test_the_projections_of_paddles_attention_are_refused(tmp_path):
    state = {f"{name}_proj.weight": torch.randn(4, 4) for name in ("q", "k", "v", "out")}
    save_file(state, tmp_path / "m.safetensors", metadata={"format": "pd"})
    with pytest.raises(tws.PlanError, match=r"Paddle keeps .* as \[inputs, outputs\]"):
        tws.warm_start(nn.MultiheadAttention(4, 2, bias=False), str(tmp_path / "m.safetensors"))
