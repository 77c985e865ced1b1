"""A model as the command line names it: what makes it, or a directory of Hugging Face's."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from torch_warmstart.cli.architectures import of_directory
from torch_warmstart.errors import SettingsError, did_you_mean
from torch_warmstart.storage import here

# This package and torch, through which a user's code goes and by which it is called.
_NOT_THEIRS = tuple(
    os.path.join(os.path.dirname(path), "") for path in (os.path.dirname(__file__), torch.__file__)
)


def make_model(where: str) -> torch.nn.Module:
    """What a `module:callable` returns, a module in the working directory included.

    Or the model that the `config.json` of a directory describes, with weights as it is made.

    Raises:
        SettingsError: there is no such thing, it raises, or it makes something else.
    """
    if os.path.isfile(os.path.join(where, "config.json")):
        return _checked(of_directory(where), where)
    module_name, _, callable_name = where.partition(":")
    if not module_name or not callable_name:
        raise SettingsError(
            f"The model is given as MODULE:CALLABLE, or as a directory with a config.json, not "
            f"{where!r}."
        )
    _check_named_as_in_an_import(module_name, callable_name)
    if "" not in sys.path:
        sys.path.insert(0, "")
    # What the user's code prints is no result, and the paths of the call begin where that was made.
    with contextlib.redirect_stdout(sys.stderr), _in_this_folder():
        return _made(module_name, callable_name, where)


@contextlib.contextmanager
def _in_this_folder() -> Iterator[None]:
    """Afterwards the working directory is what it was, if that is still there."""
    folder = here()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(folder)


def _check_named_as_in_an_import(module: str, what: str) -> None:
    """Raises SettingsError for a path in place of a module's name."""
    if all(part.isidentifier() for part in module.split(".")) and not module.endswith(".py"):
        return
    folder, _, name = module.rpartition("/")
    stem = name.removesuffix(".py").strip(".")
    then = f"Name the module as `import` does: {stem}:{what}"
    raise SettingsError(
        f"{module!r} is no module's name. {then}{f', from the directory {folder}' * bool(folder)}."
    )


def _made(module_name: str, callable_name: str, where: str) -> torch.nn.Module:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0]:
            raise raised(f"Importing {module_name}", error) from error
        raise SettingsError(
            f"There is no module {module_name!r}, in the working directory or where Python looks "
            "for modules."
        ) from error
    except (Exception, SystemExit) as error:
        raise raised(f"Importing {module_name}", error) from error
    make = getattr(module, callable_name, None)
    if make is None:
        near = did_you_mean(callable_name, (n for n in vars(module) if not n.startswith("_")))
        raise SettingsError(f"There is no {where!r}: {module_name} has no {callable_name!r}.{near}")
    if isinstance(make, torch.nn.Module):
        return make
    _check_callable(make, where)
    try:
        model = make()
    except (Exception, SystemExit) as error:
        raise raised(where, error) from error
    return _checked(model, where)


def _check_callable(make: Any, where: str) -> None:
    if not callable(make):
        raise SettingsError(
            f"{where} is no function that makes a model, but {type(make).__name__}."
        )
    try:
        needed = [
            f"{parameter}"
            for parameter in inspect.signature(make).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):  # not everything has a signature
        return
    if needed:
        raise SettingsError(
            f"{where} needs arguments ({', '.join(needed)}). Name a function without, which calls "
            "it with yours."
        )


def raised(what: str, error: BaseException) -> SettingsError:
    """What code of the user's raised as ours, with their last line on the way there."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
    last = (theirs or frames)[-1]
    line = f"{last.filename}, line {last.lineno}, in {last.name}"
    if isinstance(error, SyntaxError) and error.filename:
        line = f"{error.filename}, line {error.lineno}"
    text = f": {error}" if str(error) else ""
    return SettingsError(f"{what} raised {type(error).__name__}{text}\n  {line}")


def _checked(model: Any, where: str) -> torch.nn.Module:
    if inspect.iscoroutine(model):
        model.close()  # nobody will wait for it
    if not isinstance(model, torch.nn.Module):
        raise SettingsError(f"{where} makes no torch.nn.Module, but {type(model).__name__}.")
    return model
