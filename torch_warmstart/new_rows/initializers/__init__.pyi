from .alias import Alias as Alias
from .distribution import Mean as Mean
from .distribution import Normal as Normal
from .groups import GroupMean as GroupMean
from .pursuit import Omp as Omp
from .similar import Similar as Similar
from .subword import Subword as Subword
from .vectors import Vectors as Vectors
