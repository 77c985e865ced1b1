"""The methods, a module each: what a new row is made of. None knows of another."""

from torch_warmstart.new_rows.initializers.alias import Alias as Alias
from torch_warmstart.new_rows.initializers.distribution import Mean as Mean
from torch_warmstart.new_rows.initializers.distribution import Normal as Normal
from torch_warmstart.new_rows.initializers.groups import GroupMean as GroupMean
from torch_warmstart.new_rows.initializers.pursuit import Omp as Omp
from torch_warmstart.new_rows.initializers.similar import Similar as Similar
from torch_warmstart.new_rows.initializers.subword import Subword as Subword
from torch_warmstart.new_rows.initializers.vectors import Vectors as Vectors
