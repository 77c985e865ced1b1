"""What sees every operation of torch's while it is entered."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that does without torch's compiler.

    Of other modes torch keeps its compiler away, which it imports for that: more than a second,
    and where TensorFlow was imported before, its Triton ends the process (torch 2.13, TF 2.21).
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
