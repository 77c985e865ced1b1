"""Which tensors of a live model another vocabulary makes anew, or why that cannot be done."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
