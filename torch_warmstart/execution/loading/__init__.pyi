from .materialise import Materialised as Materialised
from .module_loading import Outcome as Outcome
from .module_loading import does_something_of_its_own as does_something_of_its_own
from .module_loading import load_modules as load_modules
