"""Users' initialisers are run: they may change nothing but the tensor that they get."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from torch_warmstart.errors import CallbackError
from torch_warmstart.model import Attributes, Journal, modules_of

# Runs what an initialiser makes, by a name for messages.
Ask = Callable[[str, Callable[[], Any]], Any]


class Guard:
    """Runs what initialisers make.

    That they write to a tensor of the model's, of its optimizer's or of the checkpoint's is an
    error, for nobody knows what they meant. What else they change of modules, whether these train
    above all, and of an optimizer's groups and state makes no difference to rows, and is put back.
    """

    def __init__(
        self,
        journal: Journal,
        models: Sequence[torch.nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> None:
        """Keeps nothing before there is an initialiser."""
        self._journal, self._models, self._optimizers = journal, models, optimizers
        self._attributes: Attributes | None = None

    def run(self, name: str, make: Callable[[], Any]) -> Any:
        """What an initialiser makes; raises CallbackError if it raises, or writes elsewhere."""
        from torch_warmstart.new_rows import asked_of

        self._keep()
        journal = self._journal
        mark, is_as_before = len(journal), journal.arrangement()
        with journal.mode:
            made = asked_of(name, make)
        if len(journal) > mark or not is_as_before():
            raise CallbackError(
                f"{name} has changed a tensor of the model, of its optimizer or of the checkpoint; "
                "it may change only the tensor that it gets."
            )
        return made

    def _keep(self) -> None:
        if self._attributes is None:
            self._attributes = Attributes()
            for model in self._models:
                self._attributes.keep(modules_of(model))
            self._attributes.keep_optimizers(self._optimizers)

    def put_back(self) -> None:
        """Undoes what they changed besides tensors."""
        if self._attributes is not None:
            self._attributes.put_back()


@contextlib.contextmanager
def guarded(model: torch.nn.Module) -> Iterator[Ask]:
    """Runs initialisers where nothing else of a model is changed; what fails is undone."""
    journal = Journal(model)
    guard = Guard(journal, [model], [])
    try:
        yield guard.run
    except BaseException:
        journal.restore()
        raise
    finally:
        guard.put_back()
        journal.close()
