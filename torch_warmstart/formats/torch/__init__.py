"""What torch writes: state dicts in memory and in files, torch.distributed checkpoints."""

from torch_warmstart.formats.torch.file import load_place as load_place
from torch_warmstart.formats.torch.file import open_file as open_file
