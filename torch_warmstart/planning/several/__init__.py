"""Several checkpoints in one start: a plan of each, and one of all, whole or not at all."""

from torch_warmstart.planning.several.merging import plan_several as plan_several
from torch_warmstart.planning.several.returning import with_returned as with_returned
