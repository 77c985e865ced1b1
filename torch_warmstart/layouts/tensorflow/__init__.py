"""What TensorFlow's layers call their tensors, and how they lay them out for torch's."""

from torch_warmstart.layouts.tensorflow.layers import absent_in_tf as absent_in_tf
from torch_warmstart.layouts.tensorflow.layers import find_form as find_form
from torch_warmstart.layouts.tensorflow.layers import is_uncounted_in_tf as is_uncounted_in_tf
from torch_warmstart.layouts.tensorflow.layers import tf_forms as tf_forms
from torch_warmstart.layouts.tensorflow.recurrent import one_layer_forms as one_layer_forms
