"""Slots in TensorFlow's and Keras's checkpoints, and what they are in torch."""

from torch_warmstart.slots.tensorflow.finder import TensorFlowSlots as TensorFlowSlots
