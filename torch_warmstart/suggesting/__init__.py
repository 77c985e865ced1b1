"""Names proposed for what a plan would not find."""

from torch_warmstart.suggesting.suggestions import Suggestions as Suggestions
