"""Directories of torch.distributed.checkpoint, read without unpickling what they hold."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
