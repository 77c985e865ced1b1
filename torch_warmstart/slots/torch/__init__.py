"""Slots in states that torch saved: by the parameter's name or its position."""

from torch_warmstart.slots.torch.finder import TorchSlots as TorchSlots
