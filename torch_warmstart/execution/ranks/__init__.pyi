from .agreement import Agreement as Agreement
from .agreement import agreement_on as agreement_on
from .sameness import chance_of as chance_of
from .sameness import marks_of as marks_of
from .sameness import replicas_may_differ as replicas_may_differ
from .sameness import same_chance as same_chance
from .sameness import told_of as told_of
