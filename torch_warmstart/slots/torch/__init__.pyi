from .finder import TorchSlots as TorchSlots
