"""What the tensors taken do not say: what lies beside them, is lost, or is to be compared."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
