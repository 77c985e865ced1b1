"""What a model does of its own while it is filled, as long as all can be undone."""

from torch_warmstart.execution.loading.materialise import Materialised as Materialised
from torch_warmstart.execution.loading.module_loading import Outcome as Outcome
from torch_warmstart.execution.loading.module_loading import (
    does_something_of_its_own as does_something_of_its_own,
)
from torch_warmstart.execution.loading.module_loading import load_modules as load_modules
