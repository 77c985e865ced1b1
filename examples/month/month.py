"""A recommender's month: 30 nights of new ids, ids that go and ids that come back.

Each day a small two-tower model is trained on that day's clicks. Each night the vocabulary is
updated by the day's counts (`update_vocabulary`), and the next day's model is warm-started from
today's, Adagrad's slots too. What stands in every row is compared with a dict from id to row and
slot, bit for bit. Two others are trained on the same clicks: one begins cold each day, one is
copied row by row, whatever the rows stand for.

    python examples/month/month.py --days 30 --plot docs/images/month.png
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot
from torch import nn

import torch_warmstart as tws

DIM, USERS, BATCH = 8, 200, 128
FIRST_DAY = 20_000  # days since 1970-01-01
START = 0.1  # of Adagrad's sums
RATE = 0.2


class TwoTower(nn.Module):
    """Users by number, items by id: the score of a pair is a product."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.user = nn.Embedding(USERS, DIM)
        self.item = nn.Embedding(num_items, DIM)
        self.bias = nn.Embedding(num_items, 1)
        nn.init.normal_(self.user.weight, std=0.3)
        nn.init.normal_(self.item.weight, std=0.3)
        nn.init.zeros_(self.bias.weight)

    def forward(self, users: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (self.user(users) * self.item(rows)).sum(-1) + self.bias(rows)[:, 0]


@dataclass
class World:
    """Ids that are born, die and come back; which users like which."""

    seed: int
    num_ids: int
    draw: np.random.Generator = field(init=False)
    alive: list[int] = field(init=False)
    asleep: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.draw = np.random.default_rng(self.seed)
        self.alive, self.asleep = [self._new() for _ in range(self.num_ids)], []
        self.users = self.draw.normal(size=(USERS, 4))
        self.tastes: dict[int, np.ndarray] = {}

    def _new(self) -> int:
        return int(self.draw.integers(1 << 40))

    def clicks(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Users, ids and whether it was liked; the ids by Zipf's law."""
        weights = 1 / np.arange(1, len(self.alive) + 1)
        ids = self.draw.choice(np.array(self.alive), count, p=weights / weights.sum())
        users = self.draw.integers(USERS, size=count)
        for one in np.unique(ids):
            self.tastes.setdefault(int(one), np.random.default_rng(int(one)).normal(size=4))
        taste = np.stack([self.tastes[int(one)] for one in ids])
        odds = (self.users[users] * taste).sum(1)
        liked = self.draw.random(count) < 1 / (1 + np.exp(-2 * odds))
        return users, ids, liked.astype(np.float32)

    def night(self) -> None:
        """Some ids are no longer shown, some are new, some are back; ranks drift."""
        for _ in range(max(1, self.num_ids // 12)):
            self.asleep.append(self.alive.pop(int(self.draw.integers(len(self.alive)))))
            back = len(self.asleep) > 5 and self.draw.random() < 0.3
            one = self.asleep.pop(0) if back else self._new()
            rank = len(self.alive) * self.draw.random() ** 3  # what is new is shown more often
            self.alive.insert(int(rank), one)


Day = tuple[np.ndarray, np.ndarray, np.ndarray]
Dict = dict[int, tuple[torch.Tensor, ...]]


def train(
    model: TwoTower,
    optimizer: torch.optim.Optimizer,
    vocab: tws.Vocabulary,
    day: Day,
    counted: tws.Vocabulary,
) -> float:
    """One pass over the clicks on counted ids; the loss of the first, before they are learned."""
    users, ids, liked = day
    rows = vocab.rows(ids)
    known = (rows >= 0) & (counted.rows(ids) >= 0)
    users, liked, rows = torch.from_numpy(users)[known], torch.from_numpy(liked)[known], rows[known]
    losses = []
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        loss = nn.functional.binary_cross_entropy_with_logits(
            model(users[part], rows[part]), liked[part], reduction="sum"
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / len(rows[part]))
    return float(np.mean(losses[: max(1, len(losses) // 3)]))


def optimizer_of(model: TwoTower) -> torch.optim.Adagrad:
    return torch.optim.Adagrad(model.parameters(), lr=RATE, initial_accumulator_value=START)


def remember(model: TwoTower, optimizer: torch.optim.Optimizer, vocab: tws.Vocabulary) -> Dict:
    """What stands in the row of each id, in the plainest way: row and slot of both tables."""
    tables = [model.item.weight, model.bias.weight]
    rows = dict(zip(vocab.listed.values(slice(None)), vocab.entry_rows.tolist(), strict=True))
    return {
        int(one): tuple(
            part[row].clone()
            for table in tables
            for part in (table.detach(), optimizer.state[table]["sum"])
        )
        for one, row in rows.items()
    }


def check(
    model: TwoTower, optimizer: torch.optim.Optimizer, vocab: tws.Vocabulary, before: Dict
) -> int:
    """Every id that was there has what it had, every other what is new; how many were there."""
    after = remember(model, optimizer, vocab)
    for one, now in after.items():
        new = (torch.zeros(DIM), torch.full((DIM,), START), torch.zeros(1), torch.full((1,), START))
        for found, expected in zip(now, before.get(one, new), strict=True):
            assert torch.equal(found, expected), f"id {one}: {found} is not {expected}"
    return len(after.keys() & before.keys())


def counts_of(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(ids, return_counts=True)


def next_model(
    folder: Path,
    model: TwoTower,
    optimizer: torch.optim.Optimizer,
    old: tws.Vocabulary,
    new: tws.Vocabulary,
) -> tuple[TwoTower, torch.optim.Optimizer]:
    """A night: save with its vocabulary, build the next day's model, warm-start it."""
    path = str(folder / "model.pt")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    tws.save_vocabularies(path, {"item.weight": old, "bias.weight": old})
    following = TwoTower(len(new))
    of_following = optimizer_of(following)
    infos = {name: tws.VocabInfo(new) for name in ("item.weight", "bias.weight")}
    settings = tws.WarmStartSettings(path, ".*", infos)
    tws.warm_start(following, settings, optimizer=of_following)
    return following, of_following


def by_position(
    model: TwoTower, optimizer: torch.optim.Optimizer, size: int
) -> tuple[TwoTower, torch.optim.Optimizer]:
    """What happens where nobody keeps the vocabulary: the first rows to the first, slots too."""
    following = TwoTower(size)
    of_following = optimizer_of(following)
    infos = {name: tws.ClipOrPad() for name in ("item.weight", "bias.weight")}
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    settings = tws.WarmStartSettings(state, ".*", infos)
    tws.warm_start(following, settings, optimizer=of_following)
    return following, of_following


def run(
    days: int, num_ids: int, clicks: int, say: Callable[[str], None] = lambda _: None
) -> Mapping[str, list[float]]:
    """The month; the loss of each day's first clicks, of three ways to begin a day."""
    torch.manual_seed(0)
    world = World(1, num_ids)
    losses: dict[str, list[float]] = {"warm start": [], "cold start": [], "by position": []}
    today = world.clicks(clicks)
    vocab = tws.update_vocabulary([1], counts_of(today[1]), min_count=2, today=FIRST_DAY)
    model = TwoTower(len(vocab))
    optimizer = optimizer_of(model)
    shuffled, ranked = TwoTower(len(vocab)), vocab
    of_shuffled = optimizer_of(shuffled)
    with tempfile.TemporaryDirectory() as folder:
        for day in range(days):
            cold = TwoTower(len(vocab))
            losses["cold start"].append(train(cold, optimizer_of(cold), vocab, today, vocab))
            losses["by position"].append(train(shuffled, of_shuffled, ranked, today, vocab))
            losses["warm start"].append(train(model, optimizer, vocab, today, vocab))
            world.night()
            today = world.clicks(clicks)
            new = tws.update_vocabulary(
                vocab,
                counts_of(today[1]),
                min_count=2,
                expire_after=3,
                today=FIRST_DAY + day + 1,
            )
            before = remember(model, optimizer, vocab)
            model, optimizer = next_model(Path(folder), model, optimizer, vocab, new)
            stayed = check(model, optimizer, new, before)
            diff = tws.diff_vocabularies(vocab, new)
            say(f"day {day + 1}: {stayed} of {len(new.listed)} ids stay\n{diff}")
            vocab = new
            ids, counts = counts_of(today[1])
            ranked = tws.Vocabulary.load(ids[np.argsort(-counts, kind="stable")])  # made anew
            shuffled, of_shuffled = by_position(shuffled, of_shuffled, len(ranked))
    return losses


def plot(losses: Mapping[str, list[float]], path: str) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for name, of in losses.items():
        axes.plot(range(1, len(of) + 1), of, label=name, marker="o", markersize=3)
    axes.set_xlabel("day")
    axes.set_ylabel("loss on the day's first clicks")
    axes.set_title("30 nights: each day's model from the day before")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--ids", type=int, default=500)
    parser.add_argument("--clicks", type=int, default=6_000)
    parser.add_argument("--plot", help="where to write a picture")
    arguments = parser.parse_args()
    found = run(arguments.days, arguments.ids, arguments.clicks, print)
    for name, of_days in found.items():
        print(f"{name:<12} {np.mean(of_days[1:]):.4f} on average from day 2 on")
    if arguments.plot:
        plot(found, arguments.plot)
