"""What does a server do under load: many clients searching, while an index job runs beside them?

    python benchmarks/serve.py --clients 16 --seconds 60

Draws reels, indexes some, starts `rushes serve`, and measures first one client alone, then all of them together while
jobs index further films. Prints latencies, errors, the server's memory, and the ratio of the 95th percentile to what
sharing the cores evenly would cost: (median of one client alone) x clients / cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import httpx
import numpy as np

import rushes
from rushes.data.reels import compose, render

TEXTS = (
    "a dog runs on the beach",
    "two people talk",
    "snow",
    "a red car drives past",
    "someone cooks",
    "a child jumps",
    "water",
    "a man with a hat",
)


def draw(folder: Path, count: int) -> list[Path]:
    """Reels of coloured noise, 320 x 240; what is in them does not matter here, how many segments they have does."""
    random, names = np.random.default_rng(0), []
    for number in range(24):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        names.append(f".p{number}.png")
        cv2.imwrite(str(folder / names[-1]), cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC))
    films = []
    for reel in compose(names, count=count, seed=0):
        films.append(folder / f"{reel.id}.mp4")
        render(reel, films[-1], root=folder, size=(320, 240))
    return films


def another(film: Path, target: Path) -> None:
    """The same film as a new content: an empty box of random bytes at its end, which players skip."""
    shutil.copy(film, target)
    with target.open("ab") as stream:
        stream.write(struct.pack(">I4s", 24, b"free") + os.urandom(16))


def serve(folder: Path) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "rushes", "serve", str(folder), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    found = re.search(r"http://\S+/", server.stderr.readline())
    assert found, "the server did not start"
    threading.Thread(target=server.stderr.read, daemon=True).start()
    return server, found[0]


def ask(client: httpx.Client, number: int) -> tuple[float, int]:
    """Seconds and status of one search; a query that no other has, so nothing could be remembered."""
    began = time.perf_counter()
    answer = client.post("/v1/search", json={"text": f"{TEXTS[number % len(TEXTS)]} {number}"})
    return time.perf_counter() - began, answer.status_code


def load(address: str, clients: int, seconds: float, beside: Callable[[], None] = lambda: None) -> tuple[list, list]:
    """All clients ask, one question after another, until the time is over; latencies of answers, statuses of errors."""
    taken: list[float] = []
    errors: list[int | str] = []
    stop = time.monotonic() + seconds

    def one(number: int) -> None:
        with httpx.Client(base_url=address, timeout=120) as client:
            count = 0
            while time.monotonic() < stop:
                try:
                    latency, status = ask(client, number + clients * count)
                except httpx.HTTPError as error:
                    errors.append(type(error).__name__)
                    continue
                count += 1
                if status == 200:
                    taken.append(latency)
                else:
                    errors.append(status)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while time.monotonic() < stop:
        beside()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    return taken, errors


def memory(pid: int) -> float:
    """MiB that the process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--films", type=int, default=16, help="indexed before; as many more in each job")
    parser.add_argument("--model", default="small")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        drawn, folder = Path(place, "drawn"), Path(place, "films")
        drawn.mkdir(), folder.mkdir()
        films = draw(drawn, asked.films)
        for film in films:
            shutil.copy(film, folder)
        rushes.open(folder).refresh(model=asked.model)
        server, address = serve(folder)
        try:
            told = measure(asked, server.pid, address, films, folder)
        finally:
            server.terminate()
            server.wait()
    if asked.json:
        print(json.dumps(told, indent=2))
        return
    for name, value in told.items():
        print(f"{name:<44} {value}")


def measure(asked: argparse.Namespace, pid: int, address: str, films: list[Path], folder: Path) -> dict[str, object]:
    with httpx.Client(base_url=address, timeout=120) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.2)
        load(address, 1, 2.0)
        alone, errors_alone = load(address, 1, max(2.0, asked.seconds / 6))
        held, jobs, segments = [memory(pid)], [], client.get("/v1/library").json()["segments"]
        began = time.monotonic()

        def keep_indexing() -> None:
            if time.monotonic() - began > len(held) * asked.seconds / 6:
                held.append(memory(pid))
            if jobs and client.get(f"/v1/jobs/{jobs[-1]}").json()["state"] in ("queued", "running"):
                return
            for film in films:
                another(film, folder / f"{len(jobs)}-{film.name}")
            jobs.append(client.post("/v1/jobs", json={}).json()["id"])

        together, errors = load(address, asked.clients, asked.seconds, keep_indexing)
        held.append(memory(pid))
        client.post(f"/v1/jobs/{jobs[-1]}/cancel")
        while client.get(f"/v1/jobs/{jobs[-1]}").json()["state"] in ("queued", "running"):
            time.sleep(0.2)
        at_last, _ = load(address, 1, max(2.0, asked.seconds / 12))  # the library has grown meanwhile
        after = client.get("/v1/library").json()["segments"]
    cores = os.cpu_count() or 1
    p50, p95 = float(np.median(alone)), float(np.percentile(together, 95))
    return {
        "cores": cores,
        "load of the machine before": round(os.getloadavg()[2], 1),
        "segments before, after": f"{segments}, {after}",
        "searches alone, together": f"{len(alone)}, {len(together)}",
        "errors alone, together": f"{len(errors_alone)}, {len(errors)} {sorted({str(one) for one in errors})}",
        "jobs begun meanwhile": len(jobs),
        "p50 of one client alone, before, after, ms": f"{1000 * p50:.1f}, {1000 * float(np.median(at_last)):.1f}",
        f"p50 of {asked.clients} clients, ms": round(1000 * float(np.median(together)), 1),
        f"p95 of {asked.clients} clients, ms": round(1000 * p95, 1),
        "searches a second, together": round(len(together) / asked.seconds, 1),
        "p95 / (p50 alone, before, x clients / cores)": round(p95 / (p50 * asked.clients / cores), 2),
        "memory, MiB, each sixth of the time": ", ".join(f"{one:.0f}" for one in held),
    }


if __name__ == "__main__":
    main()
