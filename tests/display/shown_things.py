"""A plan, a report, suggestions and a checkpoint with a bit of everything, to be looked at."""

from __future__ import annotations

import torch
from torch import nn

import torch_warmstart as tws

_TABLE = "model/input_from_feature_columns/input_layer/{}_embedding/embedding_weights"


class Ranker(nn.Module):
    """Two tables with long names in the checkpoint, four equal layers, a norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.country_of_origin = nn.Embedding(7, 4)
        self.city = nn.Embedding(4, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)


def checkpoint() -> dict[str, torch.Tensor]:
    tensors = {_TABLE.format("country_of_origin"): torch.ones(6, 4)}
    tensors[_TABLE.format("city")] = torch.ones(4, 4)
    for n in range(4):
        tensors |= {f"model/layers/{n}/kernel": torch.ones(4, 4)}
        tensors |= {f"model/layers/{n}/bias": torch.ones(4)}
    tensors |= {f"model/norm/{leaf}": torch.ones(4) for leaf in ("gamma", "beta")}
    return {**tensors, "model/head/kernel": torch.ones(4, 3), "model/head/bias": torch.ones(3)}


def settings() -> tws.WarmStartSettings:
    old, new = ["de", "fr", "gb", "us", "xx"], ["fr", "us", "de", "at", "be", "nl"]
    return tws.WarmStartSettings(
        checkpoint(),
        "(?!norm)",
        {"country_of_origin.weight": tws.VocabInfo(new, 6, 1, old)},
        {
            "country_of_origin.weight": _TABLE.format("country_of_origin"),
            "city.weight": _TABLE.format("city"),
            "layers.": "model/layers/",
        },
        on_missing="keep",
        on_mismatch="keep",
    )


def plan() -> tws.WarmStartPlan:
    return tws.plan_warm_start(Ranker(), settings())


def report() -> tws.WarmStartReport:
    return tws.warm_start(Ranker(), settings())


def suggestions() -> tws.Suggestions:
    return tws.suggest_names(
        Ranker(), {k.replace("model/", "old/"): v for k, v in checkpoint().items()}
    )


def opened() -> tws.Checkpoint:
    return tws.load_checkpoint({"model": checkpoint(), "epoch": 3, "args": {"lr": 0.1}})


def tables() -> tws.WarmStartPlan:
    """Tables of a recommender: long names, many rows, all alike; and one whose rows are many."""
    names = [f"embedding_bags.t_cat_{n}.weight" for n in range(4)] + ["embedding_bags.users.weight"]
    sizes = [(1_000 + 37 * n, 952 + 38 * n) for n in range(4)] + [(1_300_000, 1_250_002)]
    old = {
        f"sparse_arch.{name}": torch.ones(n, 1) for name, (n, _) in zip(names, sizes, strict=True)
    }
    bags = {
        name.split(".")[1]: nn.EmbeddingBag(n, 1) for name, (_, n) in zip(names, sizes, strict=True)
    }
    model = nn.ModuleDict({"sparse_arch": nn.ModuleDict({"embedding_bags": nn.ModuleDict(bags)})})
    entries = {
        f"sparse_arch.{name}": tws.VocabInfo(
            range(100, 100 + new - 2), new - 2, 2, old_vocab=range(before - 2)
        )
        for name, (before, new) in zip(names, sizes, strict=True)
    }
    return tws.plan_warm_start(model, tws.WarmStartSettings(old, ".*", entries))


EVERY = {
    "plan": plan,
    "report": report,
    "suggestions": suggestions,
    "checkpoint": opened,
    "tables": tables,
}
