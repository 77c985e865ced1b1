"""When are rows of a remote table cheaper to fetch one by one, in runs, or with all the others?

    python benchmarks/remote_rows.py --latencies 5 20 --bandwidths 0 1000 --json result.json

A server of byte ranges runs in a process of its own. It waits `latency` milliseconds before every
answer, and all answers together leave at no more than `bandwidth` Mbit/s (0: as fast as they can).
Each case fetches the rows that a remapping would need from a safetensors file there, with a fresh
checkpoint, for several `max_gap`; its time is given relative to fetching the whole table.

`--pieces` compares sizes of requests and bytes in flight for whole tables instead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

import torch_warmstart as tws
from torch_warmstart.formats.rows import row_ranges
from torch_warmstart.storage import files

KEY = "table"
WHOLE = -1  # a max_gap: everything, whatever is needed
GAPS = (0, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, WHOLE)
SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)
CLUSTER = 200  # rows of a cluster, on average
MOST_REQUESTS = 5_000  # a case that needs more is left out
PIECES = tuple(size << 20 for size in (1, 2, 4, 8, 16, 32))
IN_FLIGHT = tuple(size << 20 for size in (32, 64, 128, 256))


@dataclass(frozen=True)
class Link:
    """How far away the server is."""

    latency: float  # seconds before an answer
    bandwidth: float  # bytes a second, of all connections together; 0: no limit
    per_connection: float = 0  # the same, of each

    def __str__(self) -> str:
        limits = [f"{self.latency * 1e3:g} ms", _rate(self.bandwidth)]
        return ", ".join(
            limits + [f"{_rate(self.per_connection)} each"] * bool(self.per_connection)
        )


@dataclass(frozen=True)
class Measured:
    """One case."""

    latency_ms: float
    bandwidth_mbit: float
    pattern: str
    share: float
    max_gap: int
    requests: int
    fetched: int  # bytes
    seconds: float
    relative: float  # to fetching the whole table


# -- the server ------------------------------------------------------------------------------------


class _Server:
    """Answers HEAD and GET with a range, for one file, on connections that stay open."""

    def __init__(self, path: Path, link: Link) -> None:
        self._data, self._link = np.memmap(path, dtype=np.uint8, mode="r"), link
        self._path = f" /{path.name} ".encode()
        self._free_at = 0.0  # when the link has sent what it was given

    async def serve(self, ready: Connection) -> None:
        server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(self._link.latency)
                await self._answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        if self._path not in request:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        wanted = re.search(rb"range: bytes=(\d+)-(\d+)", request, re.IGNORECASE)
        start, stop = (int(wanted[1]), int(wanted[2]) + 1) if wanted else (0, len(self._data))
        status = "206 Partial Content" if wanted else "200 OK"
        ranges = f"Content-Range: bytes {start}-{stop - 1}/{len(self._data)}\r\n" if wanted else ""
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {stop - start}\r\n"
            f"Accept-Ranges: bytes\r\n{ranges}\r\n".encode()
        )
        if not request.startswith(b"HEAD"):
            await self._send(self._data[start:stop], writer)

    async def _send(self, data: np.ndarray, writer: asyncio.StreamWriter) -> None:
        link, own = self._link, time.monotonic()
        step = 64 << 10 if link.bandwidth or link.per_connection else 1 << 20
        for at in range(0, len(data), step):
            part = data[at : at + step]
            if link.bandwidth:
                self._free_at = max(self._free_at, time.monotonic()) + len(part) / link.bandwidth
            if link.per_connection:
                own += len(part) / link.per_connection
            await asyncio.sleep(max(0.0, max(self._free_at, own) - time.monotonic()))
            writer.write(part.data)
            await writer.drain()


def _run_server(path: Path, link: Link, ready: Connection) -> None:
    asyncio.run(_Server(path, link).serve(ready))


@contextmanager
def _served(path: Path, link: Link) -> Iterator[str]:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run_server, args=(path, link, sender), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}/{path.name}"
    finally:
        process.terminate()
        process.join()


# -- the cases -------------------------------------------------------------------------------------


def _choose_rows(count: int, share: float, pattern: str) -> torch.Tensor:
    """Which rows are needed, sorted."""
    generator = np.random.default_rng(1)
    wanted = max(1, round(count * share))
    if pattern == "random":
        return torch.from_numpy(np.sort(generator.permutation(count)[:wanted]))
    clusters = max(1, wanted // CLUSTER)
    starts = generator.integers(count, size=clusters)
    there = np.zeros(count, dtype=bool)
    while (missing := wanted - int(there.sum())) > 0:
        for start in starts:
            there[start : start + max(1, missing // clusters + 1)] = True
        starts = generator.integers(count, size=clusters)
    return torch.from_numpy(np.flatnonzero(there)[:wanted])


def _fetch(url: str, max_gap: int, rows: torch.Tensor | None) -> float:
    """Seconds to fetch rows, or everything; opening the file is not counted."""
    with tws.load_checkpoint(url, max_gap=max(0, max_gap)) as checkpoint:
        started = time.perf_counter()
        if rows is None:
            checkpoint.prefetch([KEY])
        else:
            checkpoint.row_blocks(KEY, rows)
        return time.perf_counter() - started


def _least(measure: Callable[[], float], repeats: int) -> float:
    return min(measure() for _ in range(repeats))


def _run_link(
    link: Link, url: str, options: argparse.Namespace, console: Console
) -> list[Measured]:
    row_bytes, results = options.dim * 4, []
    _fetch(url, 0, torch.tensor([0]))  # imports, the event loop
    whole = _least(lambda: _fetch(url, 0, None), options.repeats)
    title = f"{link}: seconds relative to the whole table's {whole:.2f}"
    table = Table(title=title, title_justify="left")
    for heading in ("rows", "share", *(_size(gap) for gap in options.gaps), "best"):
        table.add_column(heading, justify="right")
    for pattern in options.patterns:
        for share in options.shares:
            rows = _choose_rows(options.rows, share, pattern)
            known: dict[tuple[int, int], float] = {}
            of_gap: dict[int, Measured] = {}
            for gap in options.gaps:
                ranges = row_ranges(rows, row_bytes, 0, 1 << 62 if gap == WHOLE else gap)
                if gap == WHOLE:
                    ranges = np.array([[0, options.rows * row_bytes]])
                pieces = int((-(-(ranges[:, 1] - ranges[:, 0]) // files._PIECE)).sum())
                plan = (pieces, int((ranges[:, 1] - ranges[:, 0]).sum()))
                if pieces > MOST_REQUESTS:
                    continue
                if plan not in known:
                    known[plan] = (
                        whole
                        if gap == WHOLE or plan[1] == options.rows * row_bytes
                        else _least(lambda g=gap, r=rows: _fetch(url, g, r), options.repeats)
                    )
                of_gap[gap] = Measured(
                    link.latency * 1e3,
                    link.bandwidth * 8 / 1e6,
                    pattern,
                    share,
                    gap,
                    *plan,
                    known[plan],
                    known[plan] / whole,
                )
            results += of_gap.values()
            table.add_row(*_cells(pattern, share, of_gap, options.gaps))
    console.print(table)
    return results


def _cells(
    pattern: str, share: float, of_gap: dict[int, Measured], gaps: Sequence[int]
) -> list[str]:
    best = min(of_gap.values(), key=lambda case: case.seconds)
    near = [_size(gap) for gap in gaps if gap in of_gap and _is_near(of_gap[gap], best)]
    shown = [f"{of_gap[gap].relative:.3f}" if gap in of_gap else "" for gap in gaps]
    return [pattern, f"{share:.2%}", *shown, " ".join(near)]


def _is_near(case: Measured, best: Measured) -> bool:
    return case.seconds <= 1.15 * best.seconds


def _run_pieces(link: Link, url: str, options: argparse.Namespace, console: Console) -> list[dict]:
    """Whole tables, by the size of a request and the bytes in flight."""
    table = Table(title=f"{link}: MB/s of the whole table", title_justify="left")
    for heading in ("piece", *(f"{_size(size)} in flight" for size in IN_FLIGHT)):
        table.add_column(heading, justify="right")
    _fetch(url, 0, torch.tensor([0]))
    results = []
    for piece in PIECES:
        cells = []
        for in_flight in IN_FLIGHT:
            files._PIECE, files._MAX_BYTES_IN_FLIGHT = piece, in_flight
            seconds = _least(lambda: _fetch(url, 0, None), options.repeats)
            rate = options.rows * options.dim * 4 / seconds / 1e6
            cells.append(f"{rate:,.0f}")
            case = {"piece": piece, "in_flight": in_flight, "seconds": seconds}
            results.append({"link": str(link), **case})
        table.add_row(_size(piece), *cells)
    console.print(table)
    return results


# -- the command -----------------------------------------------------------------------------------


def _size(count: int) -> str:
    if count == WHOLE:
        return "whole"
    for unit, name in ((1 << 20, "M"), (1 << 10, "K")):
        if count and count % unit == 0:
            return f"{count // unit}{name}"
    return str(count)


def _rate(bandwidth: float) -> str:
    return f"{bandwidth * 8 / 1e6:,.0f} Mbit/s" if bandwidth else "no limit"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--latencies", type=float, nargs="+", default=[0, 5, 20, 80], help="ms")
    parser.add_argument(
        "--bandwidths", type=float, nargs="+", default=[0, 1000, 100], help="Mbit/s; 0: no limit"
    )
    parser.add_argument("--per-connection", type=float, default=0, help="Mbit/s of each")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--gaps", type=int, nargs="+", default=GAPS, help="bytes; -1: whole")
    parser.add_argument("--patterns", nargs="+", default=["random", "clustered"])
    parser.add_argument("--repeats", type=int, default=2, help="the least time counts")
    parser.add_argument("--pieces", action="store_true", help="sizes of requests instead")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Runs all cases."""
    options, console, results = _parse(), Console(width=120), []
    torch.set_num_threads(1)  # its threads would wait for cores that the server needs
    run = _run_pieces if options.pieces else _run_link
    with tempfile.TemporaryDirectory(prefix="remote_rows_") as folder:
        path = Path(folder, "table.safetensors")
        generator = np.random.default_rng(0)
        data = generator.standard_normal((options.rows, options.dim), dtype=np.float32)
        save_file({KEY: data}, path)
        for bandwidth in options.bandwidths:
            for latency in options.latencies:
                link = Link(latency / 1e3, bandwidth * 1e6 / 8, options.per_connection * 1e6 / 8)
                with _served(path, link) as url:
                    results += run(link, url, options, console)
    console.print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    if options.json:
        cases = [case if isinstance(case, dict) else asdict(case) for case in results]
        options.json.write_text(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main()
