"""Whether a port computes what the original did, and what differs between two checkpoints."""

from torch_warmstart.proof.diff import CheckpointDiff as CheckpointDiff
from torch_warmstart.proof.diff import TensorChange as TensorChange
from torch_warmstart.proof.diff import diff_checkpoints as diff_checkpoints
from torch_warmstart.proof.verify import PortCheck as PortCheck
from torch_warmstart.proof.verify import verify_port as verify_port
