"""A live model's tensors exchanged for others of another height, all of them or none."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
