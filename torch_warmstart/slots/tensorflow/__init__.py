"""Slots in TensorFlow's and Keras's checkpoints, and what they are in torch."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
