"""Where features of places and channels become a row, or the other way: their order may differ.

TensorFlow's features are channels-last, so a Flatten numbers them by places, then channels, and
torch's by channels, then places. No weight tells which a kernel is for. What is offered here
follows from sizes and from the order in which the model lists its modules; it is never done
unasked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

Difference = tuple[str, str]  # what differs, and the change to make
Modules = Mapping[str, nn.Module]
LayoutsOf = Mapping[nn.Module, Sequence[str]]  # names of layouts, by the module that they fill

# Between a convolution and a Linear these leave the number of channels as it is.
_KEEP_CHANNELS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.PReLU,
)

# keras/src/layers/reshaping/flatten.py and reshape.py keep the order of channels-last features.
_FLATTEN = (
    "it numbers features by channels, then places; TensorFlow by places, then channels.",
    "If the original flattened channels-last features, name the layout of the layer behind it: "
    "var_name_to_layout={'<layer>.weight': 'flatten_channels_last[<channels>]'}.",
)
_UNFLATTEN = (
    "it takes features as channels, then places; TensorFlow as places, then channels.",
    "If the original reshaped into channels-last features, name the layout of the layer before it: "
    "var_name_to_layout={'<layer>.weight': 'unflatten_channels_last[<channels>]', '<layer>.bias': "
    "'unflatten_channels_last[<channels>]'}.",
)


def find_flattenings(modules: Modules, layouts: LayoutsOf) -> Iterator[tuple[str, Difference]]:
    """What to compare about the order of features, and the module that it is about.

    Args:
        modules: The model's, by name and in its order.
        layouts: Of those that TensorFlow's weights fill.
    """
    yield from _Flattenings(layouts).walk(modules)
    yield from _unflattenings(modules, layouts)


@dataclass(slots=True)
class _Flattenings:
    """A walk through a model: what the features are that a Linear would be given."""

    layouts: LayoutsOf
    source: tuple[str, int] | None = None  # the last convolution, and its channels
    waiting: list[str] = field(default_factory=list)  # Flattens before the next Linear

    def walk(self, modules: Modules) -> Iterator[tuple[str, Difference]]:
        """What to compare, from the first module to the last."""
        for name, module in modules.items():
            if isinstance(module, nn.Flatten):
                self.waiting.append(name)
            elif isinstance(module, nn.modules.conv._ConvNd):
                self.source = name, module.out_channels
            elif isinstance(module, nn.Linear):
                yield from self._at_linear(name, module)
                self.source, self.waiting = None, []
            elif has_tensors(module) and not isinstance(module, _KEEP_CHANNELS):
                self.source = None
        yield from ((name, _FLATTEN) for name in self.waiting)

    def _at_linear(self, name: str, linear: nn.Linear) -> Iterator[tuple[str, Difference]]:
        used = self.layouts.get(linear)
        if used is None or any(layout.startswith("flatten_") for layout in used):
            return
        if self.source is None:
            yield from ((flatten, _FLATTEN) for flatten in self.waiting)
        elif linear.in_features != self.source[1]:  # one place has no order
            before, channels = self.source
            if linear.in_features % channels == 0:
                yield name, _flattened(name, linear.in_features, before, channels)
            else:
                yield from ((flatten, _FLATTEN) for flatten in self.waiting)


def _flattened(name: str, features: int, before: str, channels: int) -> Difference:
    return (
        f"its {features:,} inputs are a multiple of the {channels:,} channels of {before}: torch "
        "numbers such features by channels, then places; TensorFlow by places, then channels.",
        "If the original flattened channels-last features, say so: "
        f"var_name_to_layout={{{name + '.weight'!r}: 'flatten_channels_last[{channels}]'}}.",
    )


def _unflattenings(modules: Modules, layouts: LayoutsOf) -> Iterator[tuple[str, Difference]]:
    """For a Linear as wide as what an Unflatten or the convolution behind it takes, by its name."""
    told = set()
    for name, module in modules.items():
        sizes = _sizes_of(module) if isinstance(module, nn.Unflatten) else ()
        if len(sizes) < 2 or math.prod(sizes[1:]) == 1:  # one place has no order
            continue
        before = _linear_before(name, math.prod(sizes), modules)
        if before is None:
            yield name, _UNFLATTEN
        else:
            told.add(before[0])
            yield from _at_unflatten(*before, name, sizes[0], layouts)
    for linear, (name, convolution) in _linears_before_convolutions(modules):
        channels, features = convolution.in_channels, linear[1].out_features
        if linear[0] not in told and features != channels and features % channels == 0:
            yield from _at_unflatten(*linear, name, channels, layouts)


def _at_unflatten(
    name: str, linear: nn.Linear, behind: str, channels: int, layouts: LayoutsOf
) -> Iterator[tuple[str, Difference]]:
    used = layouts.get(linear)
    if used is None or all(layout.startswith("unflatten_") for layout in used):
        return  # weight and bias together, or it is half done
    leaves = ("weight", "bias") if linear.bias is not None else ("weight",)
    entries = ", ".join(f"{f'{name}.{x}'!r}: 'unflatten_channels_last[{channels}]'" for x in leaves)
    yield (
        name,
        (
            f"its {linear.out_features:,} outputs are a multiple of the {channels:,} channels that "
            f"{behind} has: torch numbers such features by channels, then places; TensorFlow by "
            "places, then channels.",
            "If the original reshaped them into channels-last features, say so: "
            f"var_name_to_layout={{{entries}}}.",
        ),
    )


def _sizes_of(unflatten: nn.Unflatten) -> tuple[int, ...]:
    """The sizes that the axis behind the batch is cut into; none for another axis."""
    if unflatten.dim != 1:
        return ()
    sizes = unflatten.unflattened_size
    return tuple(size if isinstance(size, int) else size[1] for size in sizes)  # may have names


def _linear_before(name: str, width: int, modules: Modules) -> tuple[str, nn.Linear] | None:
    """The Linear of a width that is listed last before a module, or else first behind it."""
    found = None
    is_before = True
    for other, module in modules.items():
        is_before = is_before and other != name
        if not isinstance(module, nn.Linear) or module.out_features != width:
            continue
        if is_before or found is None:
            found = other, module
    return found


def _linears_before_convolutions(
    modules: Modules,
) -> Iterator[tuple[tuple[str, nn.Linear], tuple[str, nn.modules.conv._ConvNd]]]:
    """Each Linear behind which a convolution is listed, with no other layer between, and that."""
    last = None
    for name, module in modules.items():
        if isinstance(module, nn.modules.conv._ConvNd) and last is not None:
            yield last, (name, module)
        if isinstance(module, nn.Linear):
            last = name, module
        elif has_tensors(module) and not isinstance(module, _KEEP_CHANNELS):
            last = None


def has_tensors(module: nn.Module) -> bool:
    """Whether a module has parameters or buffers of its own."""
    return any(t is not None for t in (*module._parameters.values(), *module._buffers.values()))
