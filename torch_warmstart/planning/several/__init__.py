"""Several checkpoints in one start: a plan of each, and one of all, whole or not at all."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
