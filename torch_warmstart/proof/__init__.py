"""Whether a ported model computes what the original did."""

from torch_warmstart.proof.verify import PortCheck as PortCheck
from torch_warmstart.proof.verify import verify_port as verify_port
