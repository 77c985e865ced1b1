from .finder import TensorFlowSlots as TensorFlowSlots
