"""What a checkpoint holds, for people: its tensors, and what there is besides them."""

from torch_warmstart.formats.listing.listing import list_tensors as list_tensors
