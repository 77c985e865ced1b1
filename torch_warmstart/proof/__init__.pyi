from .diff import CheckpointDiff as CheckpointDiff
from .diff import TensorChange as TensorChange
from .diff import diff_checkpoints as diff_checkpoints
from .verify import PortCheck as PortCheck
from .verify import verify_port as verify_port
