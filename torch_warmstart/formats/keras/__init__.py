"""Keras's `.keras`, `.weights.h5` and `.h5`: which variable is which in them."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
