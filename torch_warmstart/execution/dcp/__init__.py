"""A plan carried out by torch.distributed.checkpoint, whose readers read what it asks for."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
