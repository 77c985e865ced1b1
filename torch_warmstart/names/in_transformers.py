"""Names that transformers changes when it loads a model of its own.

It writes and reads some models' files by other names than its modules have (`embed_out.weight` of
GPT-NeoX is `lm_head.weight`), by tables of its own, which are asked: `conversion_mapping` and
`core_model_loading`, from version 5 on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from torch_warmstart.formats import Checkpoint
from torch_warmstart.model import module_names
from torch_warmstart.names.conventions import conventions_of
from torch_warmstart.names.renamed import BY_TRANSFORMERS, Renamed


def names_in_transformers(model: torch.nn.Module, checkpoint: Checkpoint) -> Renamed:
    """The checkpoint's keys by what transformers makes of them, where that is another name.

    Only for a model of its classes, for which it must have been imported: whatever wraps it, and
    none within another.
    """
    own = module_names(model)[""]
    return Renamed(
        _keys_by_name(own, checkpoint) if _is_its(own) else {},
        BY_TRANSFORMERS,
        "transformers",
        f"pass {type(own).__name__}.from_pretrained(...).state_dict() as the checkpoint",
    )


def _is_its(model: torch.nn.Module) -> bool:
    modeling = sys.modules.get("transformers.modeling_utils")
    return modeling is not None and isinstance(model, modeling.PreTrainedModel)


def _keys_by_name(model: Any, checkpoint: Checkpoint) -> dict[str, str]:
    if conventions_of(checkpoint).has_own_layers:
        return {}
    found: dict[str, list[str]] = {}
    try:
        for key, name, is_made in _renamed(model, checkpoint):
            found.setdefault(name, []).append("" if is_made else key)
    except Exception:  # its tables are no promise: then the file is read as it is
        return {}
    return {
        name: keys[0] if len(keys) == 1 else "" for name, keys in found.items() if keys != [name]
    }


def _renamed(model: Any, keys: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """Each key, what it becomes, and whether that is made of other tensors too."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if not isinstance(one, WeightRenaming)]
    names = dict.fromkeys(model.state_dict(), True)
    parts = {by: one.target_patterns for one in converters for by in one.source_patterns}
    for key in sorted(keys):  # some renamings wait for a key that comes first in this order
        name, made_by = rename_source_key(
            key, renamings, converters, model.base_model_prefix, names
        )
        yield key, name, made_by is not None
        first, *others = parts.get(made_by, ("",))
        for other in others:  # query, key and value of one tensor: of these it names the first
            yield key, name.replace(first, other), True
