"""The command line, one module a command. Only here is anything printed."""

from torch_warmstart.cli.main import main as main
from torch_warmstart.cli.main import run as run
