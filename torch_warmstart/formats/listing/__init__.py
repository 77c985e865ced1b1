"""What a checkpoint holds, for people: its tensors, and what there is besides them."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
