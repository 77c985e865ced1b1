"""Models that are spread over processes: FSDP's, TorchRec's, DTensors, whatever torch can save.

The only folder that touches what is private of torch.distributed or TorchRec. Nothing of them is
imported unless somebody else has.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
