"""What torch writes: state dicts in memory and in files, torch.distributed checkpoints."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
