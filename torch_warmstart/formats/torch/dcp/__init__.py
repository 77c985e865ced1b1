"""Directories of torch.distributed.checkpoint, read without unpickling what they hold."""

from torch_warmstart.formats.torch.dcp.checkpoint import DcpListing as DcpListing
