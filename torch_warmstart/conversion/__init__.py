"""Tensors written into a file: one after another, whole or not at all, in bounded memory."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
