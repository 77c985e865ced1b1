"""safetensors, the directories of `save_pretrained`, and optimizers' states beside the weights."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
