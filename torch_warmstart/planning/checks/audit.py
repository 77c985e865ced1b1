"""What weights alone cannot carry over from TensorFlow: settings of layers to compare by hand.

A checkpoint has no epsilon, no padding and no activation. Where torch's default differs from
TensorFlow's and a module of the model has torch's, the original may well have had the other one.
Each check names the line to change; none of them knows, so none changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from torch_warmstart.model import TABLES, module_names
from torch_warmstart.planning.checks.activations import find_activations, spelt, told_activations
from torch_warmstart.planning.checks.flattenings import (
    Difference,
    LayoutsOf,
    Modules,
    find_flattenings,
    has_tensors,
)
from torch_warmstart.planning.plan import Audit

if TYPE_CHECKING:
    from torch_warmstart.layouts.tensorflow import Described

_Checks: TypeAlias = Sequence[
    tuple[tuple[type[nn.Module], ...], Callable[[Any], Difference | None]]
]


def audit_port(
    model: nn.Module,
    layouts: LayoutsOf,
    described: Mapping[nn.Module, Described] = MappingProxyType({}),
    *,
    has_keras_defaults: bool = True,
) -> tuple[Audit, ...]:
    """What to compare by hand once a model has been filled from TensorFlow's weights, or Flax's.

    Args:
        model: The model.
        layouts: For each module that gets tensors from TensorFlow, the names of the layouts they
            come in. Other modules with tensors of their own were never TensorFlow's.
        described: What the file says of the layers of these modules, where it has layers. Where it
            has a layer's configuration, that counts, and what TensorFlow does by default does not.
        has_keras_defaults: Whether layers were made with Keras's defaults; else with Flax's.
    """
    if not layouts:
        return ()
    modules = module_names(model)
    found: dict[Difference, list[str]] = {}
    told = told_activations(modules, described) if described else frozenset()
    unsure = {name: module for name, module in modules.items() if module not in told}
    for name, finding in (
        *_settings(unsure, layouts, described, _CHECKS if has_keras_defaults else _OF_FLAX),
        *find_activations(modules, described),
        *find_flattenings(modules, layouts),
    ):
        found.setdefault(finding, []).append(name)
    return tuple(Audit(tuple(names), *finding) for finding, names in found.items())


def audit_norms(modules: Modules) -> tuple[Audit, ...]:
    """The same of modules that have a plain weight of torch's and divide it by a norm."""
    found: dict[Difference, list[str]] = {}
    for name, module in modules.items():
        for finding in filter(None, [_spectral_norm(module)]):
            found.setdefault(finding, []).append(name)
    return tuple(Audit(tuple(names), *finding) for finding, names in found.items())


def _settings(
    modules: Modules,
    layouts: LayoutsOf,
    described: Mapping[nn.Module, Described],
    checks: _Checks,
) -> Iterable[tuple[str, Difference]]:
    """What each module was made with that TensorFlow's was not, or may not have been made with."""
    for name, module in modules.items():
        if module in layouts or not has_tensors(module):
            layer = described.get(module)
            options = layer.options if layer is not None else None
            yield from ((name, finding) for finding in _compared(module, options, checks))
            if module in layouts:
                yield from ((name, finding) for finding in _untold_by_any(module, layouts[module]))


def _compared(
    module: nn.Module, options: Mapping[str, Any] | None, checks: _Checks
) -> Iterable[Difference]:
    """By the layer's options, where the file has them and tells all that matters."""
    if options is not None:
        from torch_warmstart.planning.checks.file_audit import TOLD, compare

        if isinstance(module, TOLD):
            return [*compare(module, options), *_findings(module, _WHATEVER_IS_SAID)]
    return _findings(module, checks)


def _findings(module: nn.Module, checks: _Checks) -> Iterable[Difference]:
    for types, check in checks:
        if isinstance(module, types):
            finding = check(module)
            if finding is not None:
                yield finding


_KEEPS = 0.5  # a momentum above it is one of Keras's: 0.9, 0.99


# -- the checks: a module that has torch's default, and what TensorFlow's is -----------------------


def _batch_norm(module: nn.Module) -> Difference | None:
    # keras/src/layers/normalization/batch_normalization.py: momentum=0.99, epsilon=1e-3.
    keras = {"eps": (1e-5, 1e-3), "momentum": (0.1, 0.01)}
    same = {name: both for name, both in keras.items() if getattr(module, name) == both[0]}
    if not same:
        return None
    mine = " and ".join(f"{name}={torch:g}" for name, (torch, _) in same.items())
    theirs = ", ".join(f"{name}={keras:g}" for name, (_, keras) in same.items())
    return (
        f"{mine} {'is' if len(same) == 1 else 'are'} torch's default; Keras has epsilon=0.001 and "
        "momentum=0.99, 0.01 in torch.",
        f"If the original has Keras's, make it {spelt(module)}(..., {theirs}).",
    )


def _copied_momentum(
    module: nn.modules.batchnorm._BatchNorm, of: str = "Keras"
) -> Difference | None:
    if module.momentum is None or module.momentum < _KEEPS:
        return None
    momentum = f"{module.momentum:g}"
    return (
        f"momentum={momentum} is the part that a new batch counts for; {of}'s is the part that is "
        f"kept, and its {momentum} is {1 - module.momentum:g} here.",
        f"Make it {spelt(module)}(..., momentum={1 - module.momentum:g}).",
    )


def _other_norm(module: nn.Module) -> Difference | None:
    # keras/src/layers/normalization/layer_normalization.py and group_normalization.py.
    return _epsilon(module, "Keras has epsilon=0.001, BERT 1e-12", "1e-3")


def _epsilon(module: nn.Module, theirs: str, eps: str) -> Difference | None:
    if module.eps != 1e-5:
        return None
    return (
        f"eps=1e-05 is torch's default; {theirs}.",
        f"If the original has {theirs.partition(' ')[0]}'s, make it {spelt(module)}(..., "
        f"eps={eps}).",
    )


def _norm_in_flax(module: nn.Module) -> Difference | None:
    return _epsilon(module, "Flax has epsilon=1e-06", "1e-6")  # flax/linen/normalization.py


def _gelu_in_flax(module: nn.Module) -> Difference | None:
    return _by_tanh(module, "; flax.linen.gelu is the one by tanh, unless approximate=False")


def _momentum_in_flax(module: nn.modules.batchnorm._BatchNorm) -> Difference | None:
    # flax/linen/normalization.py: momentum=0.99 of BatchNorm, and torch's epsilon.
    if module.momentum != 0.1:
        return _copied_momentum(module, "Flax")
    return (
        "momentum=0.1 is torch's default; Flax has momentum=0.99, 0.01 in torch.",
        f"If the original has Flax's, make it {spelt(module)}(..., momentum=0.01).",
    )


def _transposed_in_flax(module: nn.modules.conv._ConvTransposeNd) -> Difference | None:
    if module.in_channels != module.out_channels:
        return None
    return (
        "it has as many channels in as out, so that its kernel is taken as Flax's ConvTranspose "
        "keeps it by default.",
        "If the original has transpose_kernel=True, say so: var_name_to_layout="
        "{'<layer>.weight': 'conv_transpose'}.",
    )


def _untold_by_any(module: nn.Module, used: Sequence[str]) -> Iterable[Difference]:
    """What no configuration tells either."""
    if isinstance(module, nn.LayerNorm) and "channels_first" not in used:
        yield from filter(None, [_several_axes(module)])
    yield from filter(None, [_spectral_norm(module)])


def _several_axes(module: nn.LayerNorm) -> Difference | None:
    """Sizes that are the same with the channels first and last do not show which they are."""
    sizes = module.normalized_shape
    if (
        not module.elementwise_affine
        or len(sizes) < 2
        or (*sizes[-1:], *sizes[:-1]) != tuple(sizes)
    ):
        return None
    return (
        "it has a scale for each place, in an order that its sizes do not show; TensorFlow's are "
        "by places, then channels.",
        "If the module is given channels first, say so of its weight and its bias: var_name_to_"
        "layout={'<layer>.weight': 'channels_first', '<layer>.bias': 'channels_first'}.",
    )


def _spectral_norm(module: nn.Module) -> Difference | None:
    lists = getattr(module, "parametrizations", {}).values()
    kinds = {type(each).__name__ for found in lists for each in found}
    kinds |= {type(hook).__name__ for hook in module._forward_pre_hooks.values()}
    if not kinds & {"_SpectralNorm", "SpectralNorm"}:
        return None
    return (
        "it divides its weight by an estimate of its norm, which the checkpoint does not have and "
        "which is still that of the weight before.",
        "Run some batches in training mode, or if the original was not normalised, take the "
        "normalisation off.",
    )


def _rms_norm(module: nn.RMSNorm, of: str = "Keras") -> Difference | None:
    # keras/src/layers/normalization/rms_normalization.py: epsilon=1e-6.
    if module.eps is not None:
        return None
    return (
        "eps=None, torch's default, is the smallest step of the dtype (1.2e-07 in float32); "
        f"{of} has epsilon=1e-06.",
        f"If the original has {of}'s, make it nn.RMSNorm(..., eps=1e-6).",
    )


def _strided(module: nn.Module) -> Difference | None:
    # tensorflow/core/framework/common_shape_fns.cc: SAME pads (total // 2) before, the rest after.
    strides = _pair(module.stride)
    if all(stride == 1 for stride in strides) or not any(_pair(module.padding)):
        return None
    return (
        "it pads both sides alike; TensorFlow's SAME with a stride of more than 1 pads one more at "
        "the end where the size is even.",
        "If the original was SAME, pad by torch.nn.functional.pad(x, ...) and make it "
        f"{spelt(module)}(..., padding=0).",
    )


def _transposed(module: nn.Module) -> Difference | None:
    if all(stride == 1 for stride in _pair(module.stride)):
        return None
    return (
        "TensorFlow's SAME crops the result to stride times the size, one more at the end where "
        "that is odd.",
        f"If the original was SAME, make it {spelt(module)}(..., padding=0) and crop the result.",
    )


def _average_pool(module: nn.Module) -> Difference | None:
    if not any(_pair(module.padding)) or not module.count_include_pad:
        return None
    return (
        "it counts the padding as zeros; TensorFlow leaves it out of the average.",
        f"Make it {spelt(module)}(..., count_include_pad=False).",
    )


def _gelu(module: nn.Module) -> Difference | None:
    return _by_tanh(
        module,
        ", as Keras has it by default; much code for TensorFlow (GPT-2, later BERTs, "
        "tf.nn.gelu(approximate=True)) has the one by tanh",
    )


def _by_tanh(module: nn.Module, theirs: str) -> Difference | None:
    if module.approximate != "none":
        return None
    return (
        f"it is the exact function{theirs}.",
        "If the original was approximate, make it nn.GELU(approximate='tanh').",
    )


def _leaky_relu(module: nn.Module) -> Difference | None:
    if module.negative_slope != 0.01:
        return None
    return (
        "negative_slope=0.01 is torch's default; Keras has 0.3, tf.nn.leaky_relu 0.2.",
        "If the original has Keras's, make it nn.LeakyReLU(0.3).",
    )


def _hard_sigmoid(_: nn.Module) -> Difference | None:
    return (
        "it is relu6(x + 3) / 6, as in Keras 3; Keras before 3 has clip(0.2 x + 0.5, 0, 1).",
        "If the original was older, write torch.clamp(0.2 * x + 0.5, 0, 1).",
    )


def _dropout(module: nn.modules.dropout._DropoutNd) -> Difference | None:
    # tensorflow/python/ops/nn_ops.py: keep_prob of dropout() in TensorFlow 1, rate of dropout_v2().
    if not module.p:
        return None
    change = (
        "It is torch's default too: compare it with the original's."
        if module.p == 0.5  # dropped or kept, it is the same
        else f"If the original has keep_prob={module.p:g}, make it p={1 - module.p:g}."
    )
    return (
        f"p={module.p:g} is the part that is dropped, as Keras's rate is; tf.nn.dropout of "
        f"TensorFlow 1 was given the part that is kept, which is keep_prob={1 - module.p:g} here.",
        change,
    )


def _max_norm(module: nn.Embedding | nn.EmbeddingBag) -> Difference | None:
    if module.max_norm is None:
        return None
    return (
        f"max_norm={module.max_norm!r} shortens longer rows whenever they are looked up; Keras's "
        "Embedding does not, and tf.nn.embedding_lookup does where it is given max_norm.",
        f"If the original does not, make it {spelt(module)}(..., max_norm=None).",
    )


def _recurrent_dropout(module: nn.Module) -> Difference | None:
    if not module.dropout:
        return None
    return (
        f"dropout={module.dropout} is applied between stacked layers; Keras's dropout= and "
        "recurrent_dropout= are applied to a cell's inputs and states.",
        f"Make it {spelt(module)}(..., dropout=0) and apply nn.Dropout to the inputs.",
    )


_OTHER_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
# Those that hold whatever the file says of a layer.
_WHATEVER_IS_SAID: _Checks = (((nn.RNNBase,), _recurrent_dropout),)
_CHECKS: _Checks = (
    ((nn.modules.batchnorm._BatchNorm,), _batch_norm),
    ((nn.modules.batchnorm._BatchNorm,), _copied_momentum),
    (_OTHER_NORMS, _other_norm),
    ((nn.RMSNorm,), _rms_norm),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _strided),
    ((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _strided),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    ((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _average_pool),
    ((nn.GELU,), _gelu),
    ((nn.LeakyReLU,), _leaky_relu),
    ((nn.Hardsigmoid,), _hard_sigmoid),
    ((nn.modules.dropout._DropoutNd,), _dropout),
    (TABLES, _max_norm),
    *_WHATEVER_IS_SAID,
)


_OF_FLAX: _Checks = (
    ((nn.modules.batchnorm._BatchNorm,), _momentum_in_flax),
    (_OTHER_NORMS, _norm_in_flax),
    ((nn.RMSNorm,), partial(_rms_norm, of="Flax")),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _strided),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed_in_flax),
    ((nn.GELU,), _gelu_in_flax),
)


def _pair(value: object) -> tuple[int, ...]:
    """A stride or padding by dimension; a padding by name pads nothing unevenly that we know of."""
    if isinstance(value, str):
        return ()
    return tuple(value) if isinstance(value, tuple) else (int(value),)  # type: ignore[call-overload]
