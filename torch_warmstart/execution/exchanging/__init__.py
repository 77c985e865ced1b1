"""A live model's tensors exchanged for others of another height, all of them or none."""

from torch_warmstart.execution.exchanging.exchange import exchange_vocabulary as exchange_vocabulary
