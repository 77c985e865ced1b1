"""Whether programs may have the values of weights within them, where nobody writes any."""

from __future__ import annotations

from collections.abc import Iterator

from torch_warmstart.computing import has_frozen_programs
from torch_warmstart.errors import Finding

_TEXT = (
    "torch._inductor.config.freezing puts weights as they are into what torch.compile makes. If "
    "this model is compiled so, its program goes on with those that it had then."
)
_HINT = "Call torch.compiler.reset() behind the warm start: it is then compiled anew."


def find_compiled_in() -> Iterator[Finding]:
    """That what runs may not be what is filled, if it may be so."""
    if has_frozen_programs():
        yield Finding("weights-compiled-in", "warning", "model", _TEXT, _HINT)
