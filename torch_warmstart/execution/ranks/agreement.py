"""What several processes tell each other of one warm start; tensors travel by `all_to_all`.

They do so three times, and each time nobody goes on before all have spoken:

    agree    what is to be done is the same everywhere: the plan, the vocabularies, the files
    ready    all that can fail has been done, and nothing has been written
    done     all is written

A rank that cannot go on says why, and then none does. What they say goes through torch's store, by
which its processes find each other: so it can be waited for within a time, whatever the devices and
the backend are, and who does not answer is known. The lowest rank collects what the others say and
gives the verdict. A verdict is given once: who has waited too long gives it instead, and whoever
comes later finds it there. It often is the process that keeps the store, too, so it waits a moment
until the others have read a verdict behind which it may end.

Runs are counted in the store, by each rank its own. Who did not come to one that others gave up
begins with the next: they have come to it, or do soon, if they try again.

Between the first and the second they may meet, any number of times: so nobody begins something that
takes all of them before all are there, or waits for one that cannot come.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from datetime import timedelta
from typing import Any, Literal, NoReturn

import torch

from torch_warmstart.errors import (
    SettingsError,
    WarmStartError,
    as_sentence,
    is_number,
    listed,
    plural,
)
from torch_warmstart.model.sharding import gloo_group, ranks_of_group, ranks_of_model, shared_store
from torch_warmstart.values import frozen

Stage = Literal["agree", "ready", "done"]
TIMEOUT = timedelta(minutes=30)  # torch's own

NOTHING_CHANGED = "No rank has changed anything."
_NOT_IN_GROUP = (
    "This process is not in process_group: it has nothing to warm-start. Call this on the ranks "
    "that new_group() was given."
)
_NOTHING_HERE = "This rank has changed nothing."

_OTHER, _OTHER_ROWS = "has other", "has made other new rows"  # how a rank's problem begins
_SILENT = "did not answer"
_HINTS = {  # what to do about it
    _OTHER: (
        "Give all ranks the same model, settings, vocabularies and files: "
        "`print(tws.plan_warm_start(model, settings))` on both shows what each would do, and "
        "`tws.Vocabulary.load(new_vocab).fingerprint` whether entries are in another order."
    ),
    _OTHER_ROWS: (
        "A backup_initializer has to make the same rows on all ranks: let it draw from torch's "
        "generators, which are in the same state there, or give its own one seed."
    ),
    _SILENT: (
        "Every rank has to call this: see what became of the one that has not, or raise timeout=, "
        "for which the others wait."
    ),
}

_LONGEST = 365 * 86_400  # seconds
_POLL = (0.002, 0.1)  # seconds between two looks, at first and at most
_MEETING_POLL = (0.0002, 0.05)  # the same, where they meet often
_MOMENT = 3.0  # seconds that the others get to read a verdict, or to begin again
_TEXT = 2_000  # characters of a rank's problem that the others are told
_NAMED = 3  # ranks whose problems are told in full


@frozen
class Verdict:
    """What has come of a stage."""

    problems: Mapping[int, str]  # by rank, to follow "Rank 3"; none: all go on
    given: Mapping[str, Any] = field(default_factory=dict)  # by the lowest rank, for all
    is_same: bool = True  # whether all have told the same marks
    is_any_lacking: bool = False  # whether one needs what others have in memory
    silent: tuple[int, ...] = ()  # ranks that did not come
    is_told: bool = True  # whether the others have it, too

    @property
    def is_go(self) -> bool:
        """Whether all go on."""
        return not self.problems


class Agreement:
    """Those that carry out one warm start together, and what they have said so far.

    Of a process that is alone there is one, too: it agrees with itself and asks nobody.
    """

    def __init__(self, ranks: frozenset[int] = frozenset(), timeout: timedelta = TIMEOUT) -> None:
        """Tells nobody anything yet.

        Args:
            ranks: The global ranks that take part; none: this process alone.
            timeout: How long the others are waited for, at each stage.
        """
        self.ranks: tuple[int, ...] = tuple(sorted(ranks))
        self._timeout = timeout
        self.rank: int = torch.distributed.get_rank() if len(ranks) > 1 else 0
        self._verdicts: dict[Stage, Verdict] = {}
        self._said: Stage | None = None
        self._read: set[Stage] = set()  # of which the others know that this rank has the verdict
        self._meetings = 0
        self._store: Any = None
        self._run = ""
        if not self.is_alone:
            self._store = shared_store()
            who = hashlib.sha256(repr(self.ranks).encode()).hexdigest()[:16]
            with self._reaching("agree"):
                self._run = self._next_run(f"torch_warmstart/{who}")
                self._store.set(f"{self._run}/begun", "")

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to ask."""
        return len(self.ranks) < 2

    @property
    def leads(self) -> bool:
        """Whether this is the rank that collects what the others say."""
        return self.is_alone or self.rank == self.ranks[0]

    @property
    def place(self) -> tuple[int, int]:
        """Which of how many it is."""
        return (0, 1) if self.is_alone else (self.ranks.index(self.rank), len(self.ranks))

    def agree(
        self,
        told: Mapping[str, str],
        marks: str = "",
        given: Mapping[str, Any] | None = None,
        *,
        lacks: bool = False,
    ) -> Verdict:
        """Waits until all have told the same.

        Args:
            told: What must be the same on all ranks, by what it is called in an error.
            marks: What may differ; whether it does is in the verdict.
            given: What all get that the lowest rank gives.
            lacks: Whether this rank needs what only others have in memory.

        Raises WarmStartError: something differs, or a rank has a problem or does not answer.
        """
        message = {"told": dict(told), "marks": marks, "given": dict(given or {}), "lacks": lacks}
        self._say("agree", message)
        return self._checked("agree")

    def meet(self) -> None:
        """Waits, before all are ready, until all have come here as often as this rank has.

        Raises WarmStartError: one of them cannot go on, or does not come.
        """
        if self.is_alone:
            return
        with self._reaching("ready"):
            self._meet()
        self._check_if_decided("ready")

    def _meet(self) -> None:
        self._meetings += 1
        self._store.set(self._key("met", self.rank), str(self._meetings))  # to know who is missing
        counter, wanted = f"{self._run}/met", self._meetings * len(self.ranks)
        there: int = self._store.add(counter, 1)
        pause, end = _MEETING_POLL[0], time.monotonic() + self._timeout.total_seconds()
        while there < wanted:
            if self._store.check([self._key("ready")]):
                self._checked("ready")
            if time.monotonic() > end:
                self._give("ready", self._absent())
                self._checked("ready")
            time.sleep(pause)
            pause = min(2 * pause, _MEETING_POLL[1])
            there = self._store.add(counter, 0)

    def broke_off(self, error: Exception) -> NoReturn:
        """Says that what the ranks did together failed here, and waits for who knows why.

        Raises WarmStartError, which names the ranks that do not answer any more, if there are any.
        """
        text = f"{type(error).__name__}: {error}"
        self._say("ready", {"broke_off": text[:_TEXT]})
        self._checked("ready")
        raise WarmStartError(explained({self.rank: f"cannot: {text}"}))

    def process_group(self) -> Any:
        """A group of these ranks by themselves, for tensors on the CPU.

        Raises UnsupportedError: torch has been built without gloo.
        """
        name = f"{self._run}/group"
        return gloo_group(name, self.place[0], len(self.ranks), self._timeout)

    def say_ready(self, made: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Says that this rank can write; from now on `is_go` decides.

        Args:
            made: What of it others may have copies of, by what it is for and by the part of that:
                all that say something of the same part must say the same.
        """
        self._say("ready", {"made": dict(made or {})})

    def is_go(self) -> bool:
        """Waits until all are ready, or one cannot."""
        return self._verdict("ready").is_go

    def check_ready(self) -> None:
        """Raises WarmStartError if not all are ready."""
        self._checked("ready")

    def is_told_ready(self) -> bool:
        """Whether this rank has said that it can write."""
        return self._said in ("ready", "done")

    def finish(self) -> None:
        """Says that all is written here, and waits until it is everywhere.

        Raises WarmStartError: it is not, or a rank does not answer.
        """
        self._say("done", {})
        self._checked("done")

    def cannot(self, error: BaseException) -> None:
        """Tells the others why this rank does not go on; does nothing where that is known."""
        if self.is_alone or any(not verdict.is_go for verdict in self._verdicts.values()):
            return
        stage = self._open_stage()
        if stage is None:
            return
        text = f"cannot: {type(error).__name__}{f': {error}' if str(error) else ''}"
        with self._reaching(stage):
            self._give(stage, Verdict({self.rank: text[:_TEXT]}))
            self._linger(stage)

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Within, what this rank raises is told to the others."""
        try:
            yield
        except BaseException as error:
            self.cannot(error)
            raise

    # -- which run ---------------------------------------------------------------------------------

    def _next_run(self, base: str) -> str:
        """The key of the run that this rank takes part in, behind those that it was in."""
        mine = f"{base}/runs of {self.rank}"
        done: int = self._store.add(mine, 0)
        number = first = done + 1
        while self._is_missed(f"{base}/{number}"):
            number += 1
        if number > first and not self._is_begun(f"{base}/{number}"):
            number -= 1  # they do not try again: it is too late, and the verdict there says so
        self._store.add(mine, number - done)
        return f"{base}/{number}"

    def _is_missed(self, run: str) -> bool:
        """Whether the others have waited in a run, and given this rank up."""
        key = f"{run}/agree/verdict"
        known = self._store.check([key])
        return known and self.rank in _decoded(self._store.get(key)).silent

    def _is_begun(self, run: str) -> bool:
        """Whether another rank is in a run, or comes to it soon."""
        end = time.monotonic() + min(_MOMENT, self._timeout.total_seconds())
        while not self._store.check([f"{run}/begun"]):
            if time.monotonic() > end:
                return False
            time.sleep(_POLL[1])
        return True

    # -- one stage ---------------------------------------------------------------------------------

    def _open_stage(self) -> Stage | None:
        """The one that is not decided yet."""
        stages: tuple[Stage, ...] = ("agree", "ready", "done")
        return next((stage for stage in stages if stage not in self._verdicts), None)

    def _say(self, stage: Stage, message: Mapping[str, Any]) -> None:
        if self.is_alone:
            self._verdicts[stage] = Verdict({}, message.get("given", {}))
        elif stage not in self._verdicts:
            with self._reaching(stage):
                self._store.set(self._key(stage, self.rank), json.dumps(message))
        self._said = stage

    @contextlib.contextmanager
    def _reaching(self, stage: Stage) -> Iterator[None]:
        """Within, a store that is gone decides a stage: with it is the rank that keeps it."""
        try:
            yield
        except RuntimeError as error:  # what torch's stores raise
            text = f"cannot be reached: {error}"
            gone = Verdict({self.ranks[0]: text[:_TEXT]}, is_told=False)
            self._verdicts.setdefault(stage, gone)

    def _checked(self, stage: Stage) -> Verdict:
        verdict = self._verdict(stage)
        if not verdict.is_go or stage == "done":
            with self._reaching(stage):
                self._linger(stage)
        if not verdict.is_go:
            unchanged = NOTHING_CHANGED if verdict.is_told else _NOTHING_HERE
            end = "Its part may not be complete." if stage == "done" else unchanged
            raise WarmStartError(explained(verdict.problems, end))
        return verdict

    def _check_if_decided(self, stage: Stage) -> None:
        if stage in self._verdicts:
            self._checked(stage)

    def _verdict(self, stage: Stage) -> Verdict:
        if stage not in self._verdicts:
            try:
                with self._reaching(stage):
                    self._verdicts[stage] = self._wait(stage)
            except BaseException as error:  # Ctrl-C while it waited
                self.cannot(error)
                raise
        return self._verdicts[stage]

    def _wait(self, stage: Stage) -> Verdict:
        pause, end = _POLL[0], time.monotonic() + self._timeout.total_seconds()
        keys = [self._key(stage, rank) for rank in self.ranks]
        while not self._store.check([self._key(stage)]):
            if self.leads and self._store.check(keys):
                return self._give(stage, self._judge(keys))
            if time.monotonic() > end:
                return self._give(stage, self._missing(keys))
            time.sleep(pause)
            pause = min(2 * pause, _POLL[1])
        return _decoded(self._store.get(self._key(stage)))

    def _give(self, stage: Stage, verdict: Verdict) -> Verdict:
        """Gives the verdict, unless somebody has given another one before."""
        mine = _encoded(verdict)
        counts = self._store.compare_set(self._key(stage), "", mine)
        self._verdicts[stage] = _decoded(counts)
        return self._verdicts[stage]

    def _linger(self, stage: Stage) -> None:
        """Until the others have read a verdict, or a moment, if this process may keep the store."""
        verdict, read = self._verdicts[stage], f"{self._run}/{stage}/read"
        if self.is_alone or stage in self._read or not verdict.is_told:
            return
        self._read.add(stage)
        wanted = len({*self.ranks} - {*verdict.silent})
        there: int = self._store.add(read, 1)
        end = time.monotonic() + _MOMENT
        while self.leads and there < wanted and time.monotonic() < end:
            time.sleep(_POLL[0])
            there = self._store.add(read, 0)

    def _judge(self, keys: list[str]) -> Verdict:
        """From what all have said."""
        said = {
            rank: json.loads(text) for rank, text in zip(self.ranks, self._all(keys), strict=True)
        }
        problems = what_differs({r: m.get("told", {}) for r, m in said.items()}, self.rank)
        cannot = {r: f"cannot: {m['broke_off']}" for r, m in said.items() if "broke_off" in m}
        is_same = len({message.get("marks", "") for message in said.values()}) == 1
        is_any_lacking = any(message.get("lacks", False) for message in said.values())
        given = said[self.rank].get("given", {})
        return Verdict(_other_copies(said) | problems | cannot, given, is_same, is_any_lacking)

    def _all(self, keys: list[str]) -> list[bytes]:
        found: list[bytes] = self._store.multi_get(keys)
        return found

    def _missing(self, keys: list[str]) -> Verdict:
        return self._silent(
            rank for rank, key in zip(self.ranks, keys, strict=True) if not self._store.check([key])
        )

    def _absent(self) -> Verdict:
        """Who has not come to this rank's last meeting."""
        keys = [(rank, self._key("met", rank)) for rank in self.ranks]
        here = {rank for rank, key in keys if self._store.check([key])}
        return self._silent(
            rank
            for rank, key in keys
            if rank not in here or int(self._store.get(key)) < self._meetings
        )

    def _silent(self, ranks: Iterable[int]) -> Verdict:
        seconds = f"{self._timeout.total_seconds():g}"
        found = [*ranks] or [self.ranks[0]]
        problems = dict.fromkeys(found, f"{_SILENT} within {seconds} s")
        return Verdict(problems, silent=tuple(found))

    def _key(self, stage: Stage | Literal["met"], rank: int | None = None) -> str:
        return f"{self._run}/{stage}/{'verdict' if rank is None else rank}"


def agreement_on(
    model: torch.nn.Module, process_group: Any = None, timeout: timedelta | float | None = None
) -> Agreement:
    """Who warm-starts a model together.

    Args:
        model: Those that it is sharded over, or that DistributedDataParallel copies it to.
        process_group: These as well.
        timeout: How long they wait for each other, in seconds; None: as long as torch does.

    Raises SettingsError: the timeout is none, or this process is not in the group.
    """
    ranks = of_model = ranks_of_model(model)
    if process_group is not None:
        ranks |= (of_group := ranks_of_group(process_group))
        if not of_group and not of_model:
            raise SettingsError(_NOT_IN_GROUP)
    if ranks and torch.distributed.get_rank() not in ranks:
        raise SettingsError(_elsewhere(of_model) if of_model else _NOT_IN_GROUP)
    return Agreement(ranks, _read_timeout(timeout))


def _elsewhere(ranks: frozenset[int]) -> str:
    return (
        f"The model is spread over rank {listed(map(str, sorted(ranks)), 'and')}, and this process "
        f"is rank {torch.distributed.get_rank()}: it has nothing of that to warm-start. If it has "
        "other parts of the model, pass process_group= of all these ranks, on each."
    )


def what_differs(told: Mapping[int, Mapping[str, str]], first: int) -> dict[int, str]:
    """What ranks have told otherwise than the first one, to follow "Rank 3"."""
    others = {
        rank: [name for name, digest in told[first].items() if mine.get(name) != digest]
        for rank, mine in told.items()
    }
    return {
        rank: f"{_OTHER} {listed(names, 'and')} than rank {first}"
        for rank, names in others.items()
        if names
    }


def _other_copies(said: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
    """Which rank has made something otherwise than the first that has a copy of it."""
    firsts: dict[tuple[str, str], tuple[int, str]] = {}
    problems: dict[int, str] = {}
    for rank, message in said.items():
        for name, parts in message.get("made", {}).items():
            for part, digest in parts.items():
                first, expected = firsts.setdefault((name, part), (rank, digest))
                if digest != expected:
                    problems.setdefault(rank, f"{_OTHER_ROWS} for {name} than rank {first}")
    return problems


def explained(problems: Mapping[int, str], end: str = NOTHING_CHANGED) -> str:
    """What to raise where ranks have problems: those of the first few, and what has come of it."""
    said = [*problems.values()]
    texts = [f"Rank {rank} {text}" for rank, text in problems.items()]
    shown = [as_sentence(text) for text in texts[:_NAMED]]
    more = len(texts) - len(shown)
    have = "has" if more == 1 else "have"
    others = [f"{plural(more, 'other rank')} {have} a problem, too."] if more else []
    hints = [hint for begin, hint in _HINTS.items() if any(text.startswith(begin) for text in said)]
    return " ".join([*shown, *others, end, *hints])


def _read_timeout(timeout: timedelta | float | None) -> timedelta:
    if timeout is None:
        return TIMEOUT
    seconds: Any = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if not is_number(seconds) or not seconds > 0:
        raise SettingsError(f"timeout must be a number of seconds above 0, not {timeout!r}.")
    return timedelta(seconds=min(seconds, _LONGEST))


def _encoded(verdict: Verdict) -> str:
    return json.dumps(
        {
            "problems": {str(rank): text for rank, text in verdict.problems.items()},
            "given": dict(verdict.given),
            "same": verdict.is_same,
            "lacking": verdict.is_any_lacking,
            "silent": verdict.silent,
        }
    )


def _decoded(text: bytes) -> Verdict:
    found = json.loads(text)
    problems = {int(rank): problem for rank, problem in found["problems"].items()}
    silent = tuple(found["silent"])
    return Verdict(problems, found["given"], found["same"], found["lacking"], silent)
