"""Warm-start PyTorch models from TensorFlow checkpoints and torch states.

    import torch_warmstart as tws

    report = tws.warm_start(model, "path/to/model_dir")
    print(report)

See `warm_start`, `WarmStartSettings` and `VocabInfo`; docs/getting_started.md has worked examples.
"""

import importlib
import pkgutil

__version__ = "0.1.0"


def _names_in(stub):
    """Module by public name: of lines such as `from .api import warm_start as warm_start`."""
    lines = (line.split() for line in stub.decode().splitlines() if line.startswith("from "))
    return {name: module for _, module, _, name, *_ in lines}


# Nothing but the names is read at first: a module is imported when a name of its is asked for.
_MODULE_OF = _names_in(pkgutil.get_data(__name__, "__init__.pyi"))

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULE_OF[name]
    if module == ".":  # `from . import init as init`: a module is the name
        value = importlib.import_module(f".{name}", __name__)
    else:
        value = getattr(importlib.import_module(module, __name__), name)
    globals()[name] = value  # found there from now on
    return value


def __dir__():
    return [*(name for name in globals() if name.startswith("__")), *__all__]
