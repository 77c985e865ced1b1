"""What new rows are worth right after the start: a language model and a recommender, small ones.

    python benchmarks/initializer_quality.py               # five seeds, the medians as a table
    python benchmarks/initializer_quality.py --tiny        # does it all work here?

A language model is trained on text that Python ships (the topics of `help()`), and its tokenizer is
exchanged for another. What is measured is its perplexity on held-out text right after that, before
any training. A recommender of two towers gets new items: its loss over the first pass over what
people did with them. It needs the package `tokenizers`.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    old_tokens: int = 1000
    new_tokens: int = 2000
    width: int = 48
    donor_width: int = 32
    vector_width: int = 32
    steps: int = 300
    donor_steps: int = 300
    text: int = 1 << 20  # characters at most


TINY = Sizes(300, 420, 16, 8, 8, 12, 12, 40_000)
_CONTEXT, _BATCH, _WINDOW = 64, 16, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", choices=("language", "recommender"))
    parser.add_argument("--out", type=Path, help="also write the tables there, as Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes, seeds = (TINY, 1) if options.tiny else (Sizes(), options.seeds)
    tables = []
    if options.only != "recommender":
        runs = [language(seed, sizes) for seed in range(seeds)]
        tables.append(_table("perplexity", runs))
    if options.only != "language":
        tables.append(_table("loss", [recommender(seed) for seed in range(seeds)]))
    print("\n".join(tables))
    if options.out:
        options.out.write_text("\n".join(tables))


def _table(measure: str, runs: list[dict[str, float]]) -> str:
    lines = [f"| new rows | {measure}, median | least | most |", "|---|---|---|---|"]
    for name in runs[0]:
        values = sorted(run[name] for run in runs)
        figures = (statistics.median(values), values[0], values[-1])
        lines.append(f"| {name} | {' | '.join(f'{value:,.4g}' for value in figures)} |")
    return "\n".join(lines) + "\n"


# -- a language model ------------------------------------------------------------------------------


class Model(nn.Module):
    """A causal transformer with an untied head."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.places = nn.Embedding(_CONTEXT, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0, batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        given = self.embed(ids) + self.places(torch.arange(length))
        return self.head(self.norm(self.body(given, mask=mask, is_causal=True)))


def language(seed: int, sizes: Sizes) -> dict[str, float]:
    """The perplexity with each kind of new rows, of one seed."""
    torch.manual_seed(seed)
    text = "".join(topics[name] for name in sorted(topics))[: sizes.text]
    cut = int(0.9 * len(text))
    train, held_out = text[:cut], text[cut:]
    old = _tokenizer(train[: cut // 2], sizes.old_tokens)
    new = _tokenizer(train[cut // 2 :], sizes.new_tokens)
    model = _trained(Model(old.get_vocab_size(), sizes.width), old, train, sizes.steps)
    donor = _trained(Model(new.get_vocab_size(), sizes.donor_width), new, train, sizes.donor_steps)
    tokens = _tokens(new)
    donors = (tokens, donor.embed.weight.detach())
    words = (tokens, _vectors(new, train, sizes.vector_width))
    last = init.mean()
    methods: dict[str, Any] = {
        "zeros": None,
        "`torch.nn.init.normal_`": nn.init.normal_,
        "`mean()`": last,
        "`normal()`": init.normal(),
        '`normal("diagonal")`': init.normal("diagonal"),
        "`subword(old)`": init.subword(old) | last,
        '`subword(old, "exp")`': init.subword(old, "exp") | last,
        '`alias("prefix")`': init.alias("prefix") | last,
        "`similar(words)`": init.similar(words) | last,
        "`similar(words)` as FOCUS": init.similar(
            words, k=None, weights="sparsemax", temperature=1.0, anchors="shared"
        )
        | last,
        "`similar(donor)` as CLP": init.similar(
            donors, k=None, weights="proportional", anchors="shared"
        )
        | last,
        "`omp(donor, k=16)`": init.omp(donors, k=16) | last,
        "`vectors(donor)`": init.vectors(donors) | last,
        "`subword(old) + noise(0.1)`": init.subword(old) + init.noise(0.1) | last,
    }
    held = torch.tensor(new.encode(held_out).ids)
    return {name: _exchanged(model, old, new, one, held) for name, one in methods.items()}


def _exchanged(model: Model, old: Any, new: Any, initializer: Any, held_out: torch.Tensor) -> float:
    """The perplexity of a model whose tokenizer has been exchanged."""
    changed = Model(new.get_vocab_size(), model.embed.weight.shape[1])
    info = tws.VocabInfo(
        _tokens(new), new.get_vocab_size(), 0, _tokens(old), backup_initializer=initializer
    )
    settings = tws.WarmStartSettings(
        model.state_dict(), var_name_to_vocab_info={"embed.weight": info, "head": info}
    )
    tws.warm_start(changed, settings)
    with torch.no_grad():
        return math.exp(_loss(changed, _batches(held_out)).item())


def _tokenizer(text: str, size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def _tokens(tokenizer: Any) -> list[str]:
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


def _trained(model: Model, tokenizer: Any, text: str, steps: int) -> Model:
    ids = torch.tensor(tokenizer.encode(text).ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        starts = torch.randint(len(ids) - _CONTEXT, (_BATCH,)).tolist()
        batch = torch.stack([ids[start : start + _CONTEXT] for start in starts])
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, step / 20) * (1 - step / steps)
        optimizer.zero_grad()
        _loss(model, batch).backward()
        optimizer.step()
    return model


def _batches(ids: torch.Tensor) -> torch.Tensor:
    count = min(len(ids) // _CONTEXT, 64)
    return ids[: count * _CONTEXT].view(count, _CONTEXT)


def _loss(model: Model, batch: torch.Tensor) -> torch.Tensor:
    logits = model(batch)[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def _vectors(tokenizer: Any, text: str, width: int) -> torch.Tensor:
    """Vectors of tokens from what stands beside them: an SVD of positive mutual information."""
    ids = torch.tensor(tokenizer.encode(text).ids)
    size = tokenizer.get_vocab_size()
    counts = torch.zeros(size * size)
    for step in range(1, _WINDOW + 1):
        pairs = ids[:-step] * size + ids[step:]
        counts += torch.bincount(pairs, minlength=size * size) / step
    together = counts.view(size, size) + counts.view(size, size).T
    alone = together.sum(1, keepdim=True).clamp(min=1e-9)
    mutual = (together * together.sum() / (alone * alone.T)).clamp(min=1).log()
    left, lengths, _ = torch.svd_lowrank(mutual, width)
    return left * lengths.sqrt()


# -- a recommender ---------------------------------------------------------------------------------

_USERS, _ITEMS, _NEW_ITEMS, _GROUPS, _WIDTH = 400, 300, 150, 12, 16


class Towers(nn.Module):
    """People and things, each a vector."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.users = nn.Embedding(_USERS, _WIDTH)
        self.items = nn.Embedding(items, _WIDTH)
        nn.init.normal_(self.users.weight, std=0.1)
        nn.init.normal_(self.items.weight, std=0.1)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return (self.users(users) * self.items(items)).sum(1)


def recommender(seed: int) -> dict[str, float]:
    """The loss over the first pass over new items, with each kind of new rows, of one seed."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    count = _ITEMS + _NEW_ITEMS
    group = torch.randint(_GROUPS, (count,), generator=generator)
    taste = torch.randn(_USERS, _WIDTH, generator=generator)
    kinds = torch.randn(_GROUPS, _WIDTH, generator=generator)
    things = kinds[group] + 0.5 * torch.randn(count, _WIDTH, generator=generator) + 0.3
    model = Towers(_ITEMS)
    _pass_over(model, _events(taste, things[:_ITEMS], 0, generator), passes=6)
    ids = list(range(count))
    groups = dict(zip(ids, group.tolist(), strict=True))
    methods: dict[str, Any] = {
        "zeros": None,
        "`mean()`": init.mean(),
        "`group_mean(category)`": init.group_mean(groups) | init.mean(),
    }
    events = _events(taste, things[_ITEMS:], _ITEMS, generator)
    found = {}
    for name, one in methods.items():
        started = Towers(count)
        info = tws.VocabInfo(ids, count, 0, ids[:_ITEMS], backup_initializer=one)
        settings = tws.WarmStartSettings(
            model.state_dict(), var_name_to_vocab_info={"items.weight": info}
        )
        tws.warm_start(started, settings)
        found[name] = _pass_over(started, events, passes=1)
    return found


Events = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _events(
    taste: torch.Tensor, things: torch.Tensor, first: int, generator: torch.Generator
) -> Events:
    """Who has seen what, and whether they liked it."""
    count = 60 * len(things)
    users = torch.randint(_USERS, (count,), generator=generator)
    items = torch.randint(len(things), (count,), generator=generator)
    chance = torch.sigmoid((taste[users] * things[items]).sum(1) / 2)
    liked = torch.bernoulli(chance, generator=generator)
    return users, items + first, liked


def _pass_over(model: Towers, events: Events, passes: int) -> float:
    """Trains; the mean loss of the last pass, each batch before it is learnt from."""
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    for _ in range(passes):
        losses = []
        for users, items, liked in zip(*(part.split(256) for part in events), strict=True):
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(model(users, items), liked)
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
    return statistics.mean(losses)


if __name__ == "__main__":
    main()
