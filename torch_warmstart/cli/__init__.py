"""The command line: arguments, `commands`, and the one module that prints."""

from torch_warmstart.cli.main import main as main
from torch_warmstart.cli.main import run as run
