"""What weights alone do not carry over: every check, firing and silent, and its words."""

from __future__ import annotations

import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws
from torch_warmstart.planning import Audit
from torch_warmstart.planning.checks import audit, audit_port

LAST = nn.Linear(2, 2)  # what is filled besides, for modules without tensors


def audits_of(model, *filled, **layouts):
    """The audits of a model of which all modules are filled, or some; layouts by name of module."""
    names = filled or [name for name, _ in model.named_modules()]
    used = {model.get_submodule(name): ["transpose"] for name in names}
    used |= {model.get_submodule(name): [layout] for name, layout in layouts.items()}
    return audit_port(model, used)


PADDED = (
    "it pads both sides alike; TensorFlow's SAME with a stride of more than 1 pads one more at the "
    "end where the size is even. If the original was SAME, pad by torch.nn.functional.pad(x, ...) "
    "and make it nn.{}(..., padding=0)."
)
CROPPED = (
    "TensorFlow's SAME crops the result to stride times the size, one more at the end where that "
    "is odd. If the original was SAME, make it nn.{}(..., padding=0) and crop the result."
)
COUNTED = (
    "it counts the padding as zeros; TensorFlow leaves it out of the average. Make it "
    "nn.{}(..., count_include_pad=False)."
)
EPSILON = (
    "eps=1e-05 is torch's default; Keras has epsilon=0.001, BERT 1e-12. If the original has "
    "Keras's, make it nn.{}(..., eps=1e-3)."
)
KEPT = (
    "p={} is the part that is dropped, as Keras's rate is; tf.nn.dropout of TensorFlow 1 was given "
    "the part that is kept, which is keep_prob={} here. {}"
)
DEFAULT = "It is torch's default too: compare it with the original's."

# By the name of a check: modules that it is about with what it says, and ones that it is not about.
CHECKS = {
    "_batch_norm": (
        [
            (
                nn.BatchNorm1d(2),
                "eps=1e-05 and momentum=0.1 are torch's default; Keras has epsilon=0.001 and "
                "momentum=0.99, 0.01 in torch. If the original has Keras's, make it "
                "nn.BatchNorm1d(..., eps=0.001, momentum=0.01).",
            ),
            (
                nn.BatchNorm3d(2, momentum=0.01),
                "eps=1e-05 is torch's default; Keras has epsilon=0.001 and momentum=0.99, 0.01 in "
                "torch. If the original has Keras's, make it nn.BatchNorm3d(..., eps=0.001).",
            ),
        ],
        [nn.BatchNorm2d(2, 1e-3, 0.01), nn.SyncBatchNorm(2, 1e-3, None)],
    ),
    "_copied_momentum": (
        [
            (
                nn.BatchNorm2d(2, 1e-3, 0.99),
                "momentum=0.99 is the part that a new batch counts for; Keras's is the part that "
                "is kept, and its 0.99 is 0.01 here. Make it nn.BatchNorm2d(..., momentum=0.01).",
            )
        ],
        [nn.BatchNorm2d(2, 1e-3, 0.01), nn.BatchNorm2d(2, 1e-3, None)],
    ),
    "_other_norm": (
        [
            (nn.LayerNorm(2), EPSILON.format("LayerNorm")),
            (nn.GroupNorm(1, 2), EPSILON.format("GroupNorm")),
            (nn.InstanceNorm2d(2), EPSILON.format("InstanceNorm2d")),
        ],
        [nn.LayerNorm(2, 1e-12), nn.GroupNorm(1, 2, 1e-3), nn.InstanceNorm1d(2, 1e-3)],
    ),
    "_rms_norm": (
        [
            (
                nn.RMSNorm(2),
                "eps=None, torch's default, is the smallest step of the dtype (1.2e-07 in "
                "float32); Keras has epsilon=1e-06. If the original has Keras's, make it "
                "nn.RMSNorm(..., eps=1e-6).",
            )
        ],
        [nn.RMSNorm(2, 1e-6)],
    ),
    "_strided": (
        [
            (nn.Conv1d(2, 2, 3, stride=2, padding=1), PADDED.format("Conv1d")),
            (nn.Conv2d(2, 2, 3, stride=(1, 2), padding=1), PADDED.format("Conv2d")),
            (nn.Conv3d(2, 2, 3, stride=2, padding=(0, 1, 0)), PADDED.format("Conv3d")),
            (nn.MaxPool1d(3, 2, 1), PADDED.format("MaxPool1d")),
            (nn.MaxPool2d(3, 2, 1), PADDED.format("MaxPool2d")),
            (nn.MaxPool3d(3, 2, 1), PADDED.format("MaxPool3d")),
        ],
        [
            nn.Conv1d(2, 2, 3, padding=1),
            nn.Conv2d(2, 2, 3, stride=2),
            nn.Conv3d(2, 2, 3, padding="same"),
            nn.MaxPool2d(2),
            nn.MaxPool2d(3, 1, 1),
        ],
    ),
    "_transposed": (
        [
            (nn.ConvTranspose1d(2, 2, 3, stride=2), CROPPED.format("ConvTranspose1d")),
            (nn.ConvTranspose2d(2, 2, 3, stride=(2, 1)), CROPPED.format("ConvTranspose2d")),
            (nn.ConvTranspose3d(2, 2, 3, stride=2), CROPPED.format("ConvTranspose3d")),
        ],
        [nn.ConvTranspose2d(2, 2, 3)],
    ),
    "_average_pool": (
        [
            (nn.AvgPool1d(3, 2, 1), COUNTED.format("AvgPool1d")),
            (nn.AvgPool2d(3, 1, 1), COUNTED.format("AvgPool2d")),
            (nn.AvgPool3d(3, 1, 1), COUNTED.format("AvgPool3d")),
        ],
        [nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1, count_include_pad=False)],
    ),
    "_gelu": (
        [
            (
                nn.GELU(),
                "it is the exact function, as Keras has it by default; much code for TensorFlow "
                "(GPT-2, later BERTs, tf.nn.gelu(approximate=True)) has the one by tanh. If the "
                "original was approximate, make it nn.GELU(approximate='tanh').",
            )
        ],
        [nn.GELU("tanh"), nn.ReLU()],
    ),
    "_leaky_relu": (
        [
            (
                nn.LeakyReLU(),
                "negative_slope=0.01 is torch's default; Keras has 0.3, tf.nn.leaky_relu 0.2. "
                "If the original has Keras's, make it nn.LeakyReLU(0.3).",
            )
        ],
        [nn.LeakyReLU(0.3)],
    ),
    "_hard_sigmoid": (
        [
            (
                nn.Hardsigmoid(),
                "it is relu6(x + 3) / 6, as in Keras 3; Keras before 3 has clip(0.2 x + 0.5, 0, "
                "1). If the original was older, write torch.clamp(0.2 * x + 0.5, 0, 1).",
            )
        ],
        [nn.Sigmoid()],
    ),
    "_dropout": (
        [
            (nn.Dropout(), KEPT.format(0.5, 0.5, DEFAULT)),
            (
                nn.Dropout1d(0.1),
                KEPT.format(0.1, 0.9, "If the original has keep_prob=0.1, make it p=0.9."),
            ),
            (
                nn.Dropout2d(0.9),
                KEPT.format(0.9, 0.1, "If the original has keep_prob=0.9, make it p=0.1."),
            ),
            (nn.Dropout3d(), KEPT.format(0.5, 0.5, DEFAULT)),
            (nn.AlphaDropout(), KEPT.format(0.5, 0.5, DEFAULT)),
            (nn.FeatureAlphaDropout(), KEPT.format(0.5, 0.5, DEFAULT)),
        ],
        [nn.Dropout(0.0)],
    ),
    "_max_norm": (
        [
            (
                nn.Embedding(3, 2, max_norm=1.0),
                "max_norm=1.0 shortens longer rows whenever they are looked up; Keras's Embedding "
                "does not, and tf.nn.embedding_lookup does where it is given max_norm. If the "
                "original does not, make it nn.Embedding(..., max_norm=None).",
            ),
            (
                nn.EmbeddingBag(3, 2, max_norm=1.0),
                "max_norm=1.0 shortens longer rows whenever they are looked up; Keras's Embedding "
                "does not, and tf.nn.embedding_lookup does where it is given max_norm. If the "
                "original does not, make it nn.EmbeddingBag(..., max_norm=None).",
            ),
        ],
        [nn.Embedding(3, 2)],
    ),
    "_recurrent_dropout": (
        [
            (
                nn.LSTM(2, 2, num_layers=2, dropout=0.2),
                "dropout=0.2 is applied between stacked layers; Keras's dropout= and "
                "recurrent_dropout= are applied to a cell's inputs and states. Make it "
                "nn.LSTM(..., dropout=0) and apply nn.Dropout to the inputs.",
            )
        ],
        [nn.GRU(2, 2, num_layers=2)],
    ),
}


def test_the_table_is_of_all_checks():
    assert {check.__name__ for _, check in audit._CHECKS} == set(CHECKS)


def test_every_type_of_a_check_has_a_module_that_fires():
    for types, check in audit._CHECKS:
        firing, _ = CHECKS[check.__name__]
        for kind in types:
            assert any(isinstance(module, kind) for module, _ in firing), kind


FIRING = [case for firing, _ in CHECKS.values() for case in firing]
SILENT = [module for _, silent in CHECKS.values() for module in silent]


@pytest.mark.parametrize(("module", "text"), FIRING, ids=lambda case: str(case)[:40])
def test_a_module_with_torchs_default_is_told(module, text):
    model = nn.ModuleDict({"it": module, "last": LAST})
    assert [str(found) for found in audits_of(model)] == [f"it: {text}"]


@pytest.mark.parametrize("module", SILENT, ids=lambda module: str(module)[:40])
def test_a_module_with_tensorflows_own_is_not(module):
    assert audits_of(nn.ModuleDict({"it": module, "last": LAST})) == ()


def test_what_is_the_same_of_many_is_said_once():
    layers = (nn.Dropout(0.1), nn.Dropout2d(0.1), LAST, nn.AlphaDropout(0.1), nn.Dropout(0.2))
    first, second = audits_of(nn.Sequential(*layers))
    assert first.modules == ("0", "1", "3")
    assert str(first).startswith("0 and 2 other layers: p=0.1 is the part that is dropped")
    assert second.modules == ("4",)


def test_a_module_that_tensorflow_does_not_fill_was_never_tensorflows():
    model = nn.ModuleDict({"norm": nn.LayerNorm(2), "act": nn.GELU(), "fc": nn.Linear(2, 2)})
    assert [found.modules for found in audits_of(model, "fc")] == [("act",)]
    assert audit_port(model, {}) == ()


# -- the order of features -------------------------------------------------------------------------


def _flattened(name, features, channels, before):
    return Audit(
        (name,),
        f"its {features} inputs are a multiple of the {channels} channels of {before}: torch "
        "numbers such features by channels, then places; TensorFlow by places, then channels.",
        "If the original flattened channels-last features, say so: "
        f"var_name_to_layout={{'{name}.weight': 'flatten_channels_last[{channels}]'}}.",
    )


def _unflattened(name, features, channels, behind, leaves=("weight", "bias")):
    layouts = ", ".join(f"'{name}.{x}': 'unflatten_channels_last[{channels}]'" for x in leaves)
    return Audit(
        (name,),
        f"its {features} outputs are a multiple of the {channels} channels that {behind} has: "
        "torch numbers such features by channels, then places; TensorFlow by places, then "
        "channels.",
        "If the original reshaped them into channels-last features, say so: "
        f"var_name_to_layout={{{layouts}}}.",
    )


def _autoencoder(**more):
    """In the order in which people list things, which is not that of running."""
    return nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 3, 3, padding=1),
            **more,
            "enc": nn.Linear(48, 5),
            "dec": nn.Linear(5, 48),
            "out": nn.Conv2d(3, 2, 3, padding=1),
        }
    )


MODULES = {"flatten": nn.Flatten(), "unflatten": nn.Unflatten(1, (3, 4, 4))}
FLATTEN, UNFLATTEN = "flatten_channels_last[3]", "unflatten_channels_last[3]"


@pytest.mark.parametrize(("more", "behind"), [(MODULES, "unflatten"), ({}, "out")])
def test_a_layout_is_offered_by_the_layer_that_may_need_it_and_settled_there(more, behind):
    """Whether the model flattens in a module or in its forward."""
    model = _autoencoder(**more)
    encoder, decoder = _flattened("enc", 48, 3, "conv"), _unflattened("dec", 48, 3, behind)
    assert audits_of(model) == (encoder, decoder)
    assert audits_of(model, dec=UNFLATTEN) == (encoder,)
    assert audits_of(model, enc=FLATTEN) == (decoder,)
    assert audits_of(model, enc=FLATTEN, dec=UNFLATTEN) == ()
    assert audits_of(model, "conv", "out") == ()  # layers of the model's own


def test_each_flatten_is_settled_by_its_own_layer():
    def tower():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))

    model = nn.ModuleDict({"a": tower(), "b": tower()})
    used = {model["a"][3]: ["flatten_channels_last[4]"], model["b"][3]: ["transpose"]}
    assert audit_port(model, used) == (_flattened("b.3", 64, 4, "b.0"),)


def test_features_of_one_place_have_no_order():
    norm, pool = nn.BatchNorm2d(4, 1e-3, 0.01), nn.AdaptiveAvgPool2d(1)
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), norm, pool, nn.Flatten(), nn.Linear(4, 2))
    assert audits_of(pooled) == ()
    assert audits_of(nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (4, 1, 1)))) == ()


def test_a_linear_behind_another_layer_takes_no_features_of_a_convolution():
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.GRU(4, 8), nn.Linear(8, 4), nn.Linear(4, 8))
    assert audits_of(model) == ()


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Flatten(), nn.Linear(12, 2)),  # of pictures
        (nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(12, 2)),  # of something beside
        (
            nn.Linear(2, 2),
            nn.Conv2d(3, 5, 3, padding=1),
            nn.Flatten(),
        ),  # for a layer of another kind
    ],
)
def test_a_flatten_of_features_of_unknown_channels_is_told_by_itself(layers):
    (found,) = audits_of(nn.Sequential(*layers))
    assert str(found).partition(": ")[2] == (
        "it numbers features by channels, then places; TensorFlow by places, then channels. If the "
        "original flattened channels-last features, name the layout of the layer behind it: "
        "var_name_to_layout={'<layer>.weight': 'flatten_channels_last[<channels>]'}."
    )


def test_an_unflatten_is_told_by_itself_where_no_layer_is_as_wide():
    model = nn.Sequential(nn.Embedding(3, 12), nn.Unflatten(1, (3, 2, 2)))
    (found,) = audits_of(model)
    assert str(found) == (
        "1: it takes features as channels, then places; TensorFlow as places, then channels. If "
        "the original reshaped into channels-last features, name the layout of the layer before "
        "it: var_name_to_layout={'<layer>.weight': 'unflatten_channels_last[<channels>]', "
        "'<layer>.bias': 'unflatten_channels_last[<channels>]'}."
    )
    heads = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(-1, (3, 4)))
    assert audits_of(heads) == ()


def test_a_layer_without_a_bias_is_offered_no_layout_for_one():
    model = nn.Sequential(nn.Linear(2, 12, bias=False), nn.Unflatten(1, (3, 2, 2)))
    assert audits_of(model) == (_unflattened("0", 12, 3, "1", ["weight"]),)


def test_a_plan_offers_what_is_not_settled(tmp_path):
    state = {"conv/kernel": (3, 3, 3, 3), "conv/bias": (3,), "out/kernel": (3, 3, 3, 2)}
    state |= {"out/bias": (2,), "enc/kernel": (48, 5), "enc/bias": (5,), "dec/kernel": (5, 48)}
    state |= {"dec/bias": (48,)}
    path = write_random_bundle(str(tmp_path / "c"), state)
    layouts = {"enc.weight": FLATTEN}
    settings = tws.WarmStartSettings(path, [".*"], var_name_to_layout=layouts)
    model = _autoencoder(**MODULES)
    plan = tws.plan_warm_start(model, settings)
    assert plan.audits == (_unflattened("dec", 48, 3, "unflatten"),)
    assert str(plan).endswith(f"Compare: {plan.audits[0]}")
    state_of = {name: torch.zeros_like(t) for name, t in model.state_dict().items()}
    assert tws.plan_warm_start(model, state_of).audits == ()  # of torch's own weights
