"""Several processes that carry out one plan together. Only `agreement` communicates."""

from torch_warmstart.execution.ranks.agreement import Agreement as Agreement
from torch_warmstart.execution.ranks.agreement import agreement_on as agreement_on
from torch_warmstart.execution.ranks.sameness import chance_of as chance_of
from torch_warmstart.execution.ranks.sameness import marks_of as marks_of
from torch_warmstart.execution.ranks.sameness import replicas_may_differ as replicas_may_differ
from torch_warmstart.execution.ranks.sameness import same_chance as same_chance
from torch_warmstart.execution.ranks.sameness import told_of as told_of
