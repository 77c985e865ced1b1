from .diff import VocabularyDiff as VocabularyDiff
from .diff import diff_vocabularies as diff_vocabularies
from .update import update_vocabulary as update_vocabulary
from .update import warning_of as warning_of
