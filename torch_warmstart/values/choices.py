"""Arguments that are one of a few words: each list of them once, for types, checks and the help.

Nothing is imported here that needs torch, for the command line names them without it.
"""

from __future__ import annotations

from typing import Literal

OnProblem = Literal["error", "keep"]  # on_missing=, on_mismatch=
Overlap = Literal["error", "first"]  # overlap=, of several settings
Staging = Literal["none", "memory"]  # staging=
Opener = Literal["auto", "fsspec", "gfile"]  # filesystem=
Form = Literal["byte_level", "sentencepiece", "wordpiece", "casefold"]  # forms=

# What has become of an entry from one vocabulary to the next: `lifecycle/diff.py` says which it is.
Fate = Literal["kept", "moved", "returned", "new", "dropped"]

# Of `tws.init`.
WhichRows = Literal["trained", "all"]  # of=
Covariance = Literal["full", "diagonal"]  # normal(cov=)
PieceWeights = Literal["mean", "last", "first", "exp"]  # subword(weights=)
TableRole = Literal["auto", "input", "output"]  # subword(role=)
VectorWeights = Literal["softmax", "sparsemax", "proportional"]  # similar(weights=)
Anchors = Literal["old", "shared"]  # similar(anchors=)
Alike = Literal["casefold", "bytes", "prefix", "oov_bucket"]  # alias(...)
Alignment = Literal["ridge", "procrustes"]  # vectors(align=)
