"""A model as a directory of Hugging Face's describes it: nothing fetched, none of its code run."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from torch_warmstart.errors import MissingDependencyError, SettingsError, shown_value

_OFFLINE = "HF_HUB_OFFLINE"  # a variable of the environment, and a constant made of it
_INSTEAD = "Name what makes the model, as MODULE:CALLABLE."


def of_directory(folder: str) -> torch.nn.Module:
    """The architecture that the `config.json` of a directory names, with weights as it is made.

    Raises:
        MissingDependencyError: transformers is not there.
        SettingsError: there is no such architecture, or the hub would be needed for it.
    """
    with _hub_offline():
        try:
            transformers: Any = importlib.import_module("transformers")
        except ImportError as error:
            raise MissingDependencyError(
                f"{folder} is a directory of Hugging Face's, which needs transformers: pip install "
                "'torch-warmstart[transformers]'"
            ) from error
        try:
            return _made(transformers, folder)
        except SettingsError:
            raise
        except ConnectionError as error:  # the hub's, where it is offline
            raise SettingsError(
                f"{folder}/config.json needs another repository of the hub for its model, and "
                f"nothing is fetched. {_INSTEAD}"
            ) from error
        except Exception as error:  # whatever transformers makes of what a file says
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise SettingsError(f"{folder}/config.json describes no model: {what:.300}") from error


def _made(transformers: Any, folder: str) -> torch.nn.Module:
    config = transformers.AutoConfig.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        attn_implementation="eager",  # a file may name a kernel of the hub's, which is code
    )
    if getattr(config, "use_pretrained_backbone", False):  # fetched, where a checkpoint has it
        config.use_pretrained_backbone = False
    made: torch.nn.Module = _architecture(transformers, config.architectures, folder)(config)
    return made


def _architecture(transformers: Any, names: Any, folder: str) -> type[torch.nn.Module]:
    """The class of a model that a file names; it may name anything else that transformers has."""
    name = names[0] if isinstance(names, list) and names else "(none)"
    made = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(made, type) and issubclass(made, torch.nn.Module)):
        raise SettingsError(
            f"{folder}/config.json names the architecture {shown_value(name)}, which is no "
            f"model of this version of transformers. {_INSTEAD}"
        )
    return made


@contextlib.contextmanager
def _hub_offline() -> Iterator[None]:
    """A configuration may name a backbone of another repository: nothing is asked of the hub.

    Its library reads the environment when it is imported, and its own constant afterwards.
    """
    before = os.environ.get(_OFFLINE)
    os.environ[_OFFLINE] = "1"
    try:
        with _constant_set():
            yield
    finally:
        del os.environ[_OFFLINE]
        if before is not None:
            os.environ[_OFFLINE] = before


@contextlib.contextmanager
def _constant_set() -> Iterator[None]:
    try:
        constants: Any = importlib.import_module("huggingface_hub.constants")
    except ImportError:  # then there is no transformers, either
        yield
        return
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
