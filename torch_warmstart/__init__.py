"""Warm-start PyTorch models from TensorFlow checkpoints and torch states.

    import torch_warmstart as tws

    report = tws.warm_start(model, "path/to/model_dir")
    print(report)

See `warm_start`, `WarmStartSettings` and `VocabInfo`; docs/getting_started.md has worked examples.
"""

import importlib
import os
import sys

__version__ = "0.1.0"


def _names_of(package):
    """Module by name: of lines such as `from .api import warm_start as warm_start` in its stub."""
    module = sys.modules[package]
    stub = module.__loader__.get_data(os.path.join(module.__path__[0], "__init__.pyi")).decode()
    lines = (line.split() for line in stub.splitlines() if line.startswith("from "))
    return {name: module for _, module, _, name, *_ in lines}


def on_demand(package):
    """A package's `__getattr__`: what its stub names is imported when it is asked for.

    So its folders hand names on, too, and nobody imports a whole folder for one of them.
    """
    module_of = _names_of(package)

    def __getattr__(name):  # noqa: N807
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = module_of[name]
        if module == ".":  # `from . import init as init`: a module is the name
            return importlib.import_module(f".{name}", package)
        value = getattr(importlib.import_module(module, package), name)
        setattr(sys.modules[package], name, value)  # found there from now on
        return value

    return __getattr__


_MODULE_OF = _names_of(__name__)

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605
__getattr__ = on_demand(__name__)


def __dir__():
    return [*(name for name in globals() if name.startswith("__")), *__all__]
