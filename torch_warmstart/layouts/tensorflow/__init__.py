"""What TensorFlow's layers call their tensors and how they lay them out, and what optimizers add.

`optimizers.py` has the one list of slots' names: is a key an optimizer's, and of which kind.
"""

from torch_warmstart.layouts.tensorflow.described import Described as Described
from torch_warmstart.layouts.tensorflow.described import as_described as as_described
from torch_warmstart.layouts.tensorflow.layers import absent_in_tf as absent_in_tf
from torch_warmstart.layouts.tensorflow.layers import find_form as find_form
from torch_warmstart.layouts.tensorflow.layers import is_uncounted_in_tf as is_uncounted_in_tf
from torch_warmstart.layouts.tensorflow.layers import tf_forms as tf_forms
from torch_warmstart.layouts.tensorflow.optimizers import ALL_VARIABLES as ALL_VARIABLES
from torch_warmstart.layouts.tensorflow.optimizers import BERT_WORDS as BERT_WORDS
from torch_warmstart.layouts.tensorflow.optimizers import COUNTS as COUNTS
from torch_warmstart.layouts.tensorflow.optimizers import GLOBAL_STEP as GLOBAL_STEP
from torch_warmstart.layouts.tensorflow.optimizers import KERAS_FOLDERS as KERAS_FOLDERS
from torch_warmstart.layouts.tensorflow.optimizers import KERAS_WORDS as KERAS_WORDS
from torch_warmstart.layouts.tensorflow.optimizers import POWER as POWER
from torch_warmstart.layouts.tensorflow.optimizers import TF1_OPTIMIZERS as TF1_OPTIMIZERS
from torch_warmstart.layouts.tensorflow.optimizers import TF1_SLOT as TF1_SLOT
from torch_warmstart.layouts.tensorflow.optimizers import is_optimizer_state as is_optimizer_state
from torch_warmstart.layouts.tensorflow.optimizers import is_slot as is_slot
from torch_warmstart.layouts.tensorflow.optimizers import kind_of_name as kind_of_name
from torch_warmstart.layouts.tensorflow.optimizers import kind_of_words as kind_of_words
from torch_warmstart.layouts.tensorflow.optimizers import quantity as quantity
from torch_warmstart.layouts.tensorflow.optimizers import split_ending as split_ending
from torch_warmstart.layouts.tensorflow.recurrent import one_layer_forms as one_layer_forms
