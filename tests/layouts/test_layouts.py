"""Every layout against its inverse, by name, and what is refused."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from tf_layer_cases import WAYS, separable_case
from torch import nn
from transformers.pytorch_utils import Conv1D

import torch_warmstart as tws
from torch_warmstart import PlanError, VocabInfo, WarmStartSettings
from torch_warmstart.errors import plural
from torch_warmstart.layouts.named import LAYOUTS, NUMBERED, named_layout
from torch_warmstart.layouts.tensorflow.layers import tf_forms

# -- each layout undoes the other ------------------------------------------------------------------

# Tensors as TensorFlow has them. A layout without any is a layout that nobody has tested.
EXAMPLES = {
    "identity": [(2, 3)],
    "transpose": [(2, 3), (3, 3)],
    "conv": [(4, 2, 3), (4, 5, 2, 3), (4, 5, 6, 2, 3), (3, 3, 3, 3)],
    "conv_transpose": [(4, 2, 3), (4, 5, 2, 3), (4, 5, 6, 2, 3), (3, 3, 3, 3)],
    "conv_channels_last": [(4, 2, 3), (4, 5, 2, 3), (3, 3, 3, 3)],
    "conv_flipped": [(4, 2, 3), (4, 5, 2, 3), (3, 3, 3, 3)],
    "conv_transpose_flipped": [(4, 2, 3), (4, 5, 2, 3), (3, 3, 3, 3)],
    "channels_first": [(4, 2), (4, 5, 2), (4, 4, 4)],
    "pointwise_2d": [(1, 1, 2, 3), (1, 1, 3, 3)],
    "pointwise_3d": [(1, 1, 1, 2, 3)],
    "prelu_1d": [(1, 3)],
    "prelu_2d": [(1, 1, 3), (1, 1, 1)],
    "prelu_3d": [(1, 1, 1, 3)],
    "prelu_of_one": [()],
    "conv_transpose_flax": [(4, 2, 3), (4, 5, 2, 3), (4, 5, 6, 2, 3), (3, 3, 3, 3)],
    "depthwise[3]": [(4, 3, 2), (4, 5, 3, 2), (4, 5, 6, 3, 2), (3, 3, 3, 3)],
    "flatten_channels_last[3]": [(12, 5), (12,), (9, 9)],
    "unflatten_channels_last[3]": [(5, 12), (12,), (9, 9)],
    "squeeze[1]": [(1, 2, 3), (1, 3, 3), (1, 3)],
    "squeeze[3]": [(1, 1, 1, 3)],
}
INVERTED = [(name, shape) for name, shapes in EXAMPLES.items() for shape in shapes]


def test_every_layout_that_has_a_name_has_examples():
    assert {*LAYOUTS, *NUMBERED} == {name.partition("[")[0] for name in EXAMPLES}


@pytest.mark.parametrize(("name", "shape"), INVERTED)
def test_each_direction_undoes_the_other(name, shape):
    layout = named_layout(name)
    assert layout.name == name
    old = torch.rand(shape)
    (new,) = layout.to_torch(old)
    (again,) = layout.to_tf(new)
    assert torch.equal(again, old)
    assert torch.equal(layout.to_torch(again)[0], new)
    assert layout.shapes_in_torch([shape]) == (tuple(new.shape),)


@pytest.mark.parametrize(("name", "shape"), INVERTED)
def test_no_element_is_read_twice_and_the_order_of_axes_costs_no_copy(name, shape):
    old = torch.arange(np.prod(shape), dtype=torch.float64).reshape(shape)
    (new,) = named_layout(name).to_torch(old)
    assert torch.equal(new.flatten().sort().values, old.flatten())
    is_turned = name.endswith(("flipped", "flax"))  # torch has no strides backwards
    if "flatten" not in name and not is_turned:
        assert new.data_ptr() == old.data_ptr()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("transpose", (2, 3, 4)),
        ("conv", (3,)),
        ("pointwise_2d", (1, 2, 2, 3)),
        ("prelu_2d", (2, 1, 3)),
        ("flatten_channels_last[3]", (10, 2)),
        ("unflatten_channels_last[3]", (3, 10)),
        ("squeeze[1]", (2, 3)),
    ],
)
def test_tensors_that_a_layout_cannot_change_have_no_shape_in_torch(name, shape):
    assert named_layout(name).shapes_in_torch([shape]) is None


def test_one_of_stacked_tensors_is_asked_for_by_its_number():
    old, new = torch.rand(3, 2, 2), nn.Linear(2, 2, bias=False)
    settings = tws.WarmStartSettings({"weight": old}, var_name_to_layout={"weight": "stacked[2]"})
    report = tws.warm_start(new, settings)
    assert torch.equal(new.weight, old[2])
    assert report["weight"].change == "stacked"
    with pytest.raises(tws.PlanError, match=r"has shape \[2, 2\], but 'weight' .* has \[3, 2, 2\]"):
        tws.warm_start(new, replace(settings, var_name_to_layout={"weight": "stacked[3]"}))


@pytest.mark.parametrize("name", ["depthwise", "depthwise[]", "depthwise[0]", "conv[3]", "flat[3]"])
def test_a_name_without_its_number_is_no_layout(name):
    with pytest.raises(tws.SettingsError, match=r"there are identity.*depthwise\[number\]"):
        named_layout(name)


# -- torch's own list of layers --------------------------------------------------------------------

LAYERS = {
    "Linear": nn.Linear(2, 3),
    "Bilinear": nn.Bilinear(2, 3, 4),
    "Conv1d": nn.Conv1d(2, 3, 2),
    "Conv2d": nn.Conv2d(2, 3, 2),
    "Conv3d": nn.Conv3d(2, 3, 2),
    "ConvTranspose1d": nn.ConvTranspose1d(2, 3, 2),
    "ConvTranspose2d": nn.ConvTranspose2d(2, 3, 2),
    "ConvTranspose3d": nn.ConvTranspose3d(2, 3, 2),
    "BatchNorm1d": nn.BatchNorm1d(3),
    "BatchNorm2d": nn.BatchNorm2d(3),
    "BatchNorm3d": nn.BatchNorm3d(3),
    "SyncBatchNorm": nn.SyncBatchNorm(3),
    "InstanceNorm1d": nn.InstanceNorm1d(3, affine=True),
    "InstanceNorm2d": nn.InstanceNorm2d(3, affine=True),
    "InstanceNorm3d": nn.InstanceNorm3d(3, affine=True),
    "LayerNorm": nn.LayerNorm(3),
    "GroupNorm": nn.GroupNorm(1, 3),
    "RMSNorm": nn.RMSNorm(3),
    "Embedding": nn.Embedding(2, 3),
    "EmbeddingBag": nn.EmbeddingBag(2, 3),
    "PReLU": nn.PReLU(3),
    "RNN": nn.RNN(2, 3),
    "LSTM": nn.LSTM(2, 3),
    "GRU": nn.GRU(2, 3),
    "RNNCell": nn.RNNCell(2, 3),
    "LSTMCell": nn.LSTMCell(2, 3),
    "GRUCell": nn.GRUCell(2, 3),
    "MultiheadAttention": nn.MultiheadAttention(4, 2),
}
# Abstract, of layers above, or of no tensors but their children's.
NO_LAYERS = {"RNNBase", "RNNCellBase", "AdaptiveLogSoftmaxWithLoss"}


def test_every_layer_of_torch_that_has_parameters_is_considered():
    parametric = {
        name
        for name, layer in inspect.getmembers(nn, inspect.isclass)
        if hasattr(layer, "reset_parameters") or hasattr(layer, "_reset_parameters")
    }
    known = {*LAYERS, *NO_LAYERS}
    # A lazy layer becomes one of the others, and a Transformer is made of them.
    others = {name for name in parametric if name.startswith(("Lazy", "Transformer"))}
    assert parametric - others == known


@pytest.mark.parametrize("layer", LAYERS.values(), ids=list(LAYERS))
def test_each_of_their_parameters_has_a_name_in_tensorflow_or_a_refusal(layer):
    for leaf in layer._parameters:
        forms = tf_forms(layer, leaf)
        names = {name for form in forms for of_one in form.names for name in of_one}
        assert names - {leaf} or any(form.refusal for form in forms), leaf


# -- vocabularies behind axes that a layout moves --------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "axis", "module"),
    [
        ("dense", 0, lambda: nn.Linear(3, 4)),
        ("dense", 1, lambda: nn.Linear(4, 5)),
        ("conv2d", 0, lambda: nn.Conv2d(3, 4, (3, 2))),
        ("conv2d", 1, lambda: nn.Conv2d(4, 5, (3, 2))),
        ("conv2d_transposed", 0, lambda: nn.ConvTranspose2d(4, 5, (3, 2))),
        ("conv2d_transposed", 1, lambda: nn.ConvTranspose2d(3, 4, (3, 2))),
        ("depthwise2d", 0, lambda: nn.Conv2d(4, 4, (3, 2), groups=4)),
    ],
)
def test_a_vocabulary_may_change_along_an_axis_that_a_layout_moves(ported, name, axis, module):
    path, _, model = ported(*WAYS[0])
    whole = model[name].weight.detach()
    old_vocab = [f"entry {at}" for at in range(whole.shape[axis])]
    new_vocab = [old_vocab[2], "new", old_vocab[0], old_vocab[1]]
    new = nn.ModuleDict({name: module().double()})
    info = VocabInfo(new_vocab, -1, 0, old_vocab, axis=axis)
    report = tws.warm_start(new, WarmStartSettings(path, None, {f"{name}.weight": info}))
    assert report[f"{name}.weight"].state == "remapped"
    rows = new[name].weight.detach().movedim(axis, 0)
    assert torch.equal(rows[[0, 2, 3]], whole.movedim(axis, 0)[[2, 0, 1]])
    assert not rows[1].any()


# -- names and refusals ----------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """Writes float32 tensors under names of TensorFlow, the values counted from 1."""

    def write(**shapes):
        prefix = str(tmp_path / "model.ckpt")
        values = {key: np.arange(1, np.prod(shape) + 1) for key, shape in shapes.items()}
        entries = [
            BundleEntry(key, DType.FLOAT, tuple(shape), values[key].astype("<f4").tobytes())
            for key, shape in shapes.items()
        ]
        write_bundle(prefix, entries)
        return prefix

    return write


def _error(layer, path, **settings):
    model = nn.ModuleDict({"layer": layer})
    with pytest.raises(PlanError) as caught:
        tws.warm_start(model, WarmStartSettings(path, "layer.weight", **settings))
    return str(caught.value)


def test_the_names_of_layers_that_only_tf_contrib_had(checkpoint):
    path = checkpoint(
        **{
            "sep/depthwise_weights": (3, 2, 4, 2),
            "sep/pointwise_weights": (1, 1, 8, 5),
            "sep/biases": (5,),
            "dw/depthwise_weights": (3, 2, 4, 1),
            "dw/biases": (4,),
            "conv/weights": (3, 2, 4, 5),
            "conv/biases": (5,),
            "Logits/weights": (1, 1, 4, 7),
            "Logits/biases": (7,),
        }
    )
    layers = {
        "sep": separable_case(nn.Conv2d, 4, 2, 5, (3, 2)),
        "dw": nn.Conv2d(4, 4, (3, 2), groups=4),
        "conv": nn.Conv2d(4, 5, (3, 2)),
        "Logits": nn.Linear(4, 7),
    }
    plan = tws.plan_warm_start(nn.ModuleDict(layers), path)
    assert {item.name: (item.keys, item.layout.name) for item in plan.items} == {
        "sep.depthwise.weight": (("sep/depthwise_weights",), "depthwise[4]"),
        "sep.pointwise.weight": (("sep/pointwise_weights",), "conv"),
        "sep.pointwise.bias": (("sep/biases",), "identity"),
        "dw.weight": (("dw/depthwise_weights",), "depthwise[4]"),
        "dw.bias": (("dw/biases",), "identity"),
        "conv.weight": (("conv/weights",), "conv"),
        "conv.bias": (("conv/biases",), "identity"),
        "Logits.weight": (("Logits/weights",), "pointwise_2d"),
        "Logits.bias": (("Logits/biases",), "identity"),
    }


def test_a_layer_does_not_take_what_belongs_to_the_one_around_it(checkpoint):
    path = checkpoint(**{"block/bias": (5,), "block/proj/kernel": (1, 1, 4, 5)})
    model = nn.ModuleDict({"block": nn.ModuleDict({"proj": nn.Conv2d(4, 5, 1)})})
    with pytest.raises(PlanError, match=r"1 problem.*\n.*block.proj.bias is not in the checkpoint"):
        tws.warm_start(model, path)


def test_a_separable_convolution_deep_in_a_model_is_found(checkpoint):
    shapes = {"depthwise_kernel": (3, 2, 4, 1), "pointwise_kernel": (1, 1, 4, 5), "bias": (5,)}
    path = checkpoint(**{f"encoder/sep/{leaf}": shape for leaf, shape in shapes.items()})
    separable = nn.ModuleDict({"sep": separable_case(nn.Conv2d, 4, 1, 5, (3, 2))})
    model = nn.ModuleDict({"encoder": separable})
    assert tws.warm_start(model, path).count("converted") == 2


def test_a_pointwise_convolution_may_be_renamed_into_a_linear_layer(checkpoint):
    for shape in ((1, 4, 5), (1, 1, 4, 5), (1, 1, 1, 4, 5), (1, 1, 4, 4)):
        model = nn.ModuleDict({"layer": nn.Linear(4, shape[-1], bias=False)})
        renames = {"layer.weight": "conv/kernel"}
        path = checkpoint(**{"conv/kernel": shape})
        tws.warm_start(model, WarmStartSettings(path, ".*", None, renames))
        assert model["layer"].weight[0].tolist() == [1 + shape[-1] * at for at in range(4)]


@pytest.mark.parametrize("shape", [(5, 6, 4), (5, 1, 4), (4, 1, 1), (2, 4)])
def test_slopes_that_differ_from_place_to_place_are_refused(checkpoint, shape):
    assert "nn.PReLU.weight: it has one slope for each channel" in _error(
        nn.PReLU(4), checkpoint(**{"layer/alpha": shape})
    )


def test_a_norm_by_the_standard_deviation_is_no_rms_norm(checkpoint):
    path = checkpoint(**{"layer/gamma": (4,)})
    assert "rms_scaling=True divides by the standard deviation" in _error(nn.RMSNorm(4), path)
    model = nn.ModuleDict({"layer": nn.RMSNorm(4)})
    renamed = WarmStartSettings(path, ".*", None, {"layer.weight": "layer/gamma"})
    tws.warm_start(model, renamed)  # the user's own RMSNorm calls its scale so
    assert model["layer"].weight.tolist() == [1, 2, 3, 4]


def test_transposed_convolutions_in_groups_are_refused(checkpoint):
    layer = nn.ConvTranspose2d(4, 4, 3, groups=2)
    path = checkpoint(**{"layer/kernel": (3, 3, 2, 4)})
    assert "nn.ConvTranspose2d.weight: TensorFlow's transposed" in _error(layer, path)


def test_bilinear_layers_are_refused(checkpoint):
    path = checkpoint(**{"layer/weight": (3, 3, 3)})
    assert "nn.Bilinear.weight: TensorFlow has no layer like it" in _error(
        nn.Bilinear(3, 3, 3), path
    )


def test_a_refused_tensor_is_taken_where_the_user_names_its_layout(checkpoint):
    model = nn.ModuleDict({"layer": nn.PReLU(4)})
    path = checkpoint(**{"layer/alpha": (1, 4)})
    layouts = {"layer.weight": "prelu_1d"}
    tws.warm_start(model, WarmStartSettings(path, ".*", var_name_to_layout=layouts))
    assert model["layer"].weight.tolist() == [1, 2, 3, 4]


def test_a_kernel_of_a_larger_size_is_no_linear_layer(checkpoint):
    path = checkpoint(**{"layer/kernel": (1, 2, 3, 5)})
    assert "layer.weight has shape [5, 3], but 'layer/kernel'" in _error(nn.Linear(3, 5), path)


def test_layer_norms_over_axes_of_other_sizes_do_not_fit(checkpoint):
    path = checkpoint(**{"layer/gamma": (5, 6, 4)})
    assert "layer.weight has shape [4, 5, 6], but" in _error(nn.LayerNorm((4, 5, 6)), path)


def test_the_features_behind_a_flatten_are_reordered_only_if_the_user_says_so(checkpoint):
    path = checkpoint(**{"layer/kernel": (6, 1)})
    rows = {}
    for layouts in (None, {"layer.weight": "flatten_channels_last[3]"}):
        model = nn.ModuleDict({"layer": nn.Linear(6, 1, bias=False)})
        report = tws.warm_start(model, WarmStartSettings(path, var_name_to_layout=layouts))
        rows[report["layer.weight"].change] = model["layer"].weight.flatten().tolist()
    assert rows == {
        "transpose": [1, 2, 3, 4, 5, 6],
        "flatten_channels_last[3]": [1, 4, 2, 5, 3, 6],
    }


def test_a_flatten_of_another_number_of_channels_does_not_fit(checkpoint):
    path = checkpoint(**{"layer/kernel": (6, 1)})
    layouts = {"layer.weight": "flatten_channels_last[4]"}
    assert "to be changed by 'flatten_channels_last[4]'" in _error(
        nn.Linear(6, 1), path, var_name_to_layout=layouts
    )


# -- what would be lost ----------------------------------------------------------------------------

_BN = {f"layer/{n}": (4,) for n in ("gamma", "beta", "moving_mean", "moving_variance")}
_AFFINE = {f"layer/{n}": (4,) for n in ("gamma", "beta")}
_DENSE = {"layer/kernel": (3, 4), "layer/bias": (4,)}
_LOST = "layer.{} is None, but the checkpoint has {} for it: it would be lost."
_LOST_ADVICE = (
    "A tensor that would be lost: make the module with it (bias=True, affine=True), leave its name "
    "out of vars_to_warm_start, or take what fits and lose the rest with on_mismatch='keep'."
)
_BOTH_LOST = [_LOST.format("weight", "'layer/gamma'"), _LOST.format("bias", "'layer/beta'")]
_BIAS_LOST = [_LOST.format("bias", "'layer/bias'")]


@pytest.mark.parametrize(
    ("module", "tensors", "problems"),
    [
        (nn.Linear(3, 4, bias=False), _DENSE, _BIAS_LOST),
        (
            nn.Linear(3, 4, bias=False),
            {"layer/weights": (3, 4), "layer/biases": (4,)},
            [_LOST.format("bias", "'layer/biases'")],
        ),
        (
            nn.Linear(3, 4, bias=False),
            {"layer/kernel": (3, 2, 2), "layer/bias": (2, 2)},
            _BIAS_LOST,
        ),
        (
            nn.Conv2d(3, 4, 2, bias=False),
            {"layer/kernel": (2, 2, 3, 4), "layer/bias": (4,)},
            _BIAS_LOST,
        ),
        (
            nn.Conv1d(4, 4, 2, groups=4, bias=False),
            {"layer/depthwise_kernel": (2, 4, 1), "layer/bias": (4,)},
            _BIAS_LOST,
        ),
        (
            nn.ConvTranspose2d(3, 4, 2, bias=False),
            {"layer/kernel": (2, 2, 4, 3), "layer/bias": (4,)},
            _BIAS_LOST,
        ),
        (nn.LayerNorm(4, bias=False), _AFFINE, _BOTH_LOST[1:]),
        (nn.LayerNorm(4, elementwise_affine=False), _AFFINE, _BOTH_LOST),
        (nn.GroupNorm(2, 4, affine=False), _AFFINE, _BOTH_LOST),
        (nn.InstanceNorm2d(4), _AFFINE, _BOTH_LOST),
        (nn.BatchNorm2d(4, affine=False), _BN, _BOTH_LOST),
        (
            nn.RMSNorm(4, elementwise_affine=False),
            {"layer/scale": (4,)},
            [_LOST.format("weight", "'layer/scale'")],
        ),
        (
            separable_case(nn.Conv2d, 4, 2, 5, (3, 2), bias=False),
            {
                "layer/depthwise_kernel": (3, 2, 4, 2),
                "layer/pointwise_kernel": (1, 1, 8, 5),
                "layer/bias": (5,),
            },
            [_LOST.format("pointwise.bias", "'layer/bias'")],
        ),
    ],
    ids=lambda value: str(value)[:36] if isinstance(value, nn.Module) else "",
)
@pytest.mark.parametrize("selection", [".*", [".*"]])
def test_a_tensor_that_the_module_is_made_without_is_refused(
    checkpoint, module, tensors, problems, selection
):
    model = nn.ModuleDict({"layer": module, "last": nn.Linear(1, 1)})
    path = checkpoint(**tensors, **{"last/kernel": (1, 1), "last/bias": (1,)})
    with pytest.raises(PlanError) as caught:
        tws.warm_start(model, WarmStartSettings(path, selection))
    assert list(map(str, caught.value.problems)) == problems
    assert str(caught.value).endswith(f"\n{_LOST_ADVICE}")
    kept = tws.warm_start(model, WarmStartSettings(path, selection, on_mismatch="keep"))
    name, _, rest = problems[0].partition(" is None, but the checkpoint has ")
    assert str(kept.notes[-1]) == (
        f"What the checkpoint has for {plural(len(problems), 'parameter')} that modules are made "
        f"without (such as {rest.partition(' for it')[0]} for {name}) is lost."
    )


@pytest.mark.parametrize(
    "rules", [{"fc.": "layer/"}, {"fc.weight": "layer/kernel"}, [("fc[.](.+)", r"layer/\1")]]
)
def test_what_would_be_lost_is_found_where_rules_lead(checkpoint, rules):
    model = nn.ModuleDict({"fc": nn.Linear(3, 4, bias=False)})
    with pytest.raises(PlanError, match="fc.bias is None, but the checkpoint has 'layer/bias'"):
        tws.warm_start(model, WarmStartSettings(checkpoint(**_DENSE), ".*", None, rules))


def test_what_a_module_without_tensors_would_lose_is_found_where_rules_lead(checkpoint):
    norm = nn.LayerNorm(4, elementwise_affine=False)
    model = nn.ModuleDict({"net": nn.ModuleDict({"fc": nn.Linear(3, 4), "norm": norm})})
    tensors = {"old/fc/kernel": (3, 4), "old/fc/bias": (4,), "old/norm/gamma": (4,)}
    settings = WarmStartSettings(checkpoint(**tensors), ".*", None, {"net.": "old/"})
    message = "net.norm.weight is None, but the checkpoint has 'old/norm/gamma'"
    with pytest.raises(PlanError, match=message):
        tws.warm_start(model, settings)


def test_a_layer_without_a_bias_on_either_side_is_taken(checkpoint):
    path = checkpoint(**{"layer/kernel": (3, 4), "norm/gamma": (4,), "bn/moving_mean": (4,)})
    layers = {"layer": nn.Linear(3, 4, bias=False), "norm": nn.LayerNorm(4, bias=False)}
    report = tws.warm_start(nn.ModuleDict(layers), path)
    assert (report.count("kept"), report.notes) == (0, ())


def test_what_is_not_selected_or_what_another_variable_takes_is_not_lost(checkpoint):
    path = checkpoint(**_DENSE)
    model = nn.ModuleDict({"layer": nn.Linear(3, 4, bias=False)})
    tws.warm_start(model, WarmStartSettings(path, "layer.weight"))
    model["layer"].own_bias = nn.Parameter(torch.zeros(4))
    settings = WarmStartSettings(path, ".*", None, {"layer.own_bias": "layer/bias"})
    assert tws.warm_start(model, settings)["layer.own_bias"].key == "layer/bias"


def test_a_tied_head_without_a_bias_loses_none(checkpoint):
    model = nn.ModuleDict({"words": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["words"].weight
    tws.warm_start(model, checkpoint(**{"words/embeddings": (5, 3)}))
    with pytest.raises(PlanError, match="head.bias is None, but the checkpoint has 'head/bias'"):
        tws.warm_start(model, checkpoint(**{"words/embeddings": (5, 3), "head/bias": (5,)}))


def test_what_torch_saved_loses_nothing_in_silence():
    old = nn.ModuleDict({"layer": nn.Linear(3, 4)})
    model = nn.ModuleDict({"layer": nn.Linear(3, 4, bias=False)})
    with pytest.raises(PlanError, match="layer.bias is None, but the checkpoint has 'layer.bias'"):
        tws.warm_start(model, old)
    kept = WarmStartSettings(old.state_dict(), on_mismatch="keep")
    with pytest.warns(tws.WarmStartWarning, match="parameter-lost"):
        report = tws.warm_start(model, kept)
    assert report.unexpected_keys == ("layer.bias",)
    assert not tws.warm_start(model, WarmStartSettings(old.state_dict(), ".*weight")).notes


@pytest.mark.parametrize("name", ["w", "kernel"])
def test_a_layer_made_from_transformers_conv1d_is_one(name):
    class FSDPConv1D(Conv1D):
        """As `fully_shard` makes a class of its own of each module's."""

    model = nn.ModuleDict({"h": FSDPConv1D(3, 2)})
    kernel = torch.arange(6.0).view(1, 2, 3)
    tws.warm_start(model, {f"h/{name}:0": kernel, "h/bias:0": torch.ones(3)})
    assert torch.equal(model["h"].weight, kernel[0])
