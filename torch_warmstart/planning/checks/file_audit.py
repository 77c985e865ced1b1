"""Settings of layers, compared with those that the file says, and what it does not say of them.

What torch's layer cannot have at all is refused where it is laid out. Here are settings that it has
and that are not the file's, and what would have been refused if the file had it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from torch_warmstart.errors import is_number
from torch_warmstart.layouts import is_torchs_own
from torch_warmstart.model import TABLES
from torch_warmstart.planning.checks.activations import is_close, spelt
from torch_warmstart.planning.checks.flattenings import Difference

if TYPE_CHECKING:
    from torch_warmstart.layouts.tensorflow import Described

Options = Mapping[str, Any]

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
# What is compared with a layer's configuration, where the file has one.
TOLD = (*_NORMS, *_CONVOLUTIONS, *TABLES, nn.RNNBase)


def compare(module: nn.Module, options: Options) -> Iterator[Difference]:
    """What a module was made with that the file says otherwise."""
    if isinstance(module, _NORMS):
        yield from _norm(module, options)
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            yield from _normed_axes(options)
    elif isinstance(module, _CONVOLUTIONS):
        yield from _convolution(module, options)
    elif isinstance(module, nn.RNNBase):
        yield from _recurrent(module, options)
    elif isinstance(module, TABLES):
        yield from _table(module, options)


def _norm(module: nn.Module, options: Options) -> Iterator[Difference]:
    """All that differs at once, for it is one line to change."""
    wanted: dict[str, tuple[Any, str]] = {}
    epsilon, momentum, groups = (options.get(name) for name in ("epsilon", "momentum", "groups"))
    if is_number(epsilon):
        wanted["eps"] = epsilon, f"epsilon={epsilon!r}"
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and is_number(momentum):
        # What is kept in Keras, what is new in torch.
        wanted["momentum"] = round(1 - momentum, 9), f"momentum={momentum!r}"
    if isinstance(module, nn.GroupNorm) and isinstance(groups, int):
        wanted["num_groups"] = module.num_channels if groups == -1 else groups, f"groups={groups!r}"
    differ = {k: v for k, v in wanted.items() if not is_close(getattr(module, k), v[0])}
    if differ:
        mine = " and ".join(f"{name}={getattr(module, name)!r}" for name in differ)
        theirs = " and ".join(said for _, said in differ.values())
        change = ", ".join(f"{name}={value!r}" for name, (value, _) in differ.items())
        yield f"{mine}; the file says {theirs}.", f"Make it {spelt(module)}(..., {change})."


def _normed_axes(options: Options) -> Iterator[Difference]:
    """Axes that are not the last ones, or not counted from the end, as whoever made it wrote them.

    Keras before 3 writes all as counted from the front: nothing is seen of those.
    """
    axes = options.get("axis")
    given = axes if isinstance(axes, list | tuple) else [axes]
    is_of_keras_3 = isinstance(options.get("dtype"), Mapping)
    numbers = [axis for axis in given if isinstance(axis, int)]
    from_end = sorted(axis for axis in numbers if axis < 0)
    are_others = from_end != list(range(-len(from_end), 0))
    if are_others or (is_of_keras_3 and len(from_end) < len(numbers)):
        yield (
            f"it normalises the last axes; the file says axis={axes!r}, of the original's input.",
            "If those are not its last ones, give the module its input with them last.",
        )


def _convolution(module: nn.modules.conv._ConvNd, options: Options) -> Iterator[Difference]:
    rank = len(module.kernel_size)
    for theirs, ours in (("strides", "stride"), ("dilation_rate", "dilation")):
        wanted = _sizes(options.get(theirs), rank)
        if wanted is not None and wanted != tuple(getattr(module, ours)):
            yield _differs(module, ours, wanted, f"{theirs}={list(wanted)!r}")
    if module.transposed:
        yield from _cropped(module, options)
        return
    # Where torch's layer pads nothing, the model may do that by itself.
    padding, is_strided = options.get("padding"), any(stride != 1 for stride in module.stride)
    pads = module.padding == "same" or any(_padding(module))
    if padding == "same" and pads and not is_strided and not _keeps_size(module):
        yield (
            f"padding={module.padding!r}; the file says padding='same'.",
            f"Make it {spelt(module)}(..., padding='same').",
        )
    if padding == "same" and pads and is_strided:
        yield (
            "it pads both sides alike; the file says padding='same', which with a stride of more "
            "than 1 pads one more at the end where the size is even.",
            f"Pad by torch.nn.functional.pad(x, ...) and make it {spelt(module)}(..., padding=0).",
        )
    if padding == "valid" and pads:
        yield (
            f"padding={module.padding!r}; the file says padding='valid', which pads nothing.",
            "Make it 0, unless it takes the place of a layer that pads.",
        )
    if padding == "causal" and pads:
        yield (
            "it pads both sides; the file says padding='causal', which pads the beginning alone.",
            f"Pad by torch.nn.functional.pad(x, ...) and make it {spelt(module)}(..., padding=0).",
        )


def _padding(module: nn.modules.conv._ConvNd) -> tuple[int, ...]:
    """What it pads at each end, where that is said by numbers."""
    return () if isinstance(module.padding, str) else tuple(module.padding)


def _keeps_size(module: nn.modules.conv._ConvNd) -> bool:
    """Whether it pads as much as its kernel takes away, where it has no strides."""
    if module.padding == "same":
        return True
    taken = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return [2 * padding for padding in _padding(module)] == taken


def _cropped(module: nn.modules.conv._ConvNd, options: Options) -> Iterator[Difference]:
    """What a transposed convolution leaves out of its result, or adds to it.

    Keras makes strides times the size with padding='same': what is left out, `reach - stride`, is
    halved, and of an odd number one more goes at the end (keras `backend/common/
    backend_utils.py`). Where torch's layer leaves out nothing, the model may do that by itself.
    """
    padding, added = _padding(module), tuple(module.output_padding)
    said = options.get("padding")
    is_told = said in ("same", "valid") and options.get("output_padding") is None
    if not is_told or not any((*padding, *added)):
        return
    parts = zip(module.kernel_size, module.dilation, module.stride, strict=True)
    left = [dilation * (size - 1) + 1 - stride for size, dilation, stride in parts]
    cut = [max(0, each) if said == "same" else 0 for each in left]
    wanted = tuple(each // 2 for each in cut), tuple(max(0, -each) for each in left)
    if (padding, added) == wanted and not any(each % 2 for each in cut):
        return
    differs = f"padding={padding!r} and output_padding={added!r}; the file says padding={said!r}"
    if any(each % 2 for each in cut):
        crop = ", ".join(f"{each // 2} in front and {each - each // 2} behind" for each in cut)
        yield (
            f"{differs}, which leaves out one more at the end.",
            f"Make it {spelt(module)}(..., padding=0, output_padding=0) and crop the result: {crop}"
            f"{' along each axis in turn' if len(cut) > 1 else ''}.",
        )
    else:
        values = f"padding={wanted[0]!r}, output_padding={wanted[1]!r}"
        yield f"{differs}.", f"Make it {spelt(module)}(..., {values})."


def _table(module: nn.Embedding | nn.EmbeddingBag, options: Options) -> Iterator[Difference]:
    if module.max_norm is not None:
        yield (
            f"max_norm={module.max_norm!r}, which shortens longer rows whenever they are looked up;"
            " the file's layer does not.",
            f"Make it {spelt(module)}(..., max_norm=None).",
        )
    cap = options.get("logit_soft_cap")  # of a ReversibleEmbedding
    if cap is not None:
        yield (
            f"the file says logit_soft_cap={cap!r:.60}, for what is multiplied with the table.",
            "If the model does that, make its logits cap * torch.tanh(logits / cap).",
        )


def _recurrent(module: nn.RNNBase, options: Options) -> Iterator[Difference]:
    merge = options.get("merge_mode", "concat")
    if merge != "concat":
        yield (
            f"it puts both directions side by side; the file says merge_mode={merge!r}.",
            "Merge the halves of its output so.",
        )
    if options.get("time_major") is True and module.batch_first:
        yield (
            "batch_first=True; the file says time_major=True, with the steps in front.",
            f"Make it {spelt(module)}(..., batch_first=False), or turn its inputs.",
        )


# -- what the file does not say --------------------------------------------------------------------


def untold(module: nn.Module, layer: Described, layouts: Sequence[str]) -> Iterator[Difference]:
    """What would be laid out otherwise, or refused, if the original was not what it seems."""
    if layer.is_own and is_torchs_own(module):
        yield (
            f"the file says that its layer is of a class of the program's own, {layer.kind!r:.60}, "
            f"which may compute something else than {spelt(module)} from tensors of these names.",
            "Compare it with the original.",
        )
    is_recurrent = isinstance(module, nn.RNNBase | nn.RNNCellBase)
    if is_recurrent and layer.options is None and any(n.startswith("keras_") for n in layouts):
        gates = "" if isinstance(module, nn.RNN | nn.RNNCell) else " and sigmoid at the gates"
        yield (
            f"it has {getattr(module, 'nonlinearity', 'tanh')}{gates}, and runs forwards; the file "
            "does not say what the original had. Keras before 2.3 had "
            "recurrent_activation='hard_sigmoid' by default.",
            "If it had other activations or go_backwards=True, torch's layer is not the same.",
        )
    if isinstance(module, nn.LayerNorm) and layer.options is None and len(layouts) == 1:
        yield from _half_a_norm(module)


def _half_a_norm(module: nn.LayerNorm) -> Iterator[Difference]:
    if module.elementwise_affine:
        yield (
            "the file has one of its two tensors, and does not say whether its layer was made with "
            "center=False, scale=False, or with rms_scaling=True.",
            "If it was rms_scaling=True, nn.LayerNorm is not the same: it subtracts the mean.",
        )


# -- shared ----------------------------------------------------------------------------------------


def _differs(module: nn.Module, setting: str, wanted: Any, said: str) -> Difference:
    return (
        f"{setting}={getattr(module, setting)!r}; the file says {said}.",
        f"Make it {spelt(module)}(..., {setting}={wanted!r}).",
    )


def _sizes(value: Any, rank: int) -> tuple[int, ...] | None:
    if isinstance(value, int):
        return (value,) * rank
    if isinstance(value, list | tuple) and len(value) == rank:
        return tuple(value)
    return None
