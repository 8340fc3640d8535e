"""How fast the server answers under load, on the machine that makes the load, too.

    python benchmarks/serving/load.py [--shops eshop million] [--rates 50 100 200] [--seconds 10]

Serves models by `tfrec-llm serve`: one trained on the clicks of the package's clothing shop, one
of a million items with random vectors, by exact and by approximate search. Requests arrive at
random at a given rate, whether or not the ones before are answered; a tenth of them post an event,
the others ask for ten items for one of a thousand users with twenty events each. Latency counts
from the moment a request should have been sent. Then the rate grows by half until the 99th
percentile passes 50 ms, with batching and without. Before that, versions are swapped under load.

Prints a table and writes results/load.json beside this script and the table of docs/serving.md.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, machine, markdown, write

RESULTS = Path(__file__).parent / "results" / "load.json"
PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
PACKAGES = ("tensorflow", "keras", "fastapi", "uvicorn", "faiss-cpu")
SHOPS = ("eshop", "million", "million, approximate")
USERS, EVENTS, LIMIT = 1000, 20, 0.05
SERVE = "import sys; from tfrec_llm.cli import main; sys.exit(main())"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shops", nargs="+", choices=SHOPS, default=SHOPS)
    parser.add_argument("--rates", nargs="+", type=int, default=[50, 100, 200])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--note", default="", help="about the machine, kept with the results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    results: dict[str, Any] = {
        "machine": machine(*PACKAGES),
        "note": arguments.note,
        "seconds": arguments.seconds,
        "shops": {},
    }
    if arguments.results.exists():
        results["shops"] = json.loads(arguments.results.read_text())["shops"]
    with tempfile.TemporaryDirectory() as folder:
        for shop in arguments.shops:
            model = Path(folder) / "shop" / shop.replace(", ", "-")
            items = export(shop, model, arguments.items)
            results["shops"][shop] = measured(model, items, arguments)
            write(arguments.results, results)
    page = arguments.page.read_text(encoding="utf-8")
    arguments.page.write_text(renewed(page, arguments.results), encoding="utf-8")
    print(table(results))


def export(shop: str, folder: Path, num_items: int) -> list[Any]:
    """Exports version 1 of a shop, and returns raw ids of items."""
    import tfrec_llm as tr

    if shop == "eshop":
        split = tr.data.leave_last_out(tr.data.load("eshop"))
        rec = tr.Recommender("next", emb_dim=64, num_layers=2, num_heads=2, max_length=64)
        rec.fit(split.train, epochs=1, verbose=0)
        rec.export(folder / "1")
        return rec.vocabulary.ids.to_pylist()
    counts = np.random.default_rng(0).zipf(1.5, num_items + 3).clip(max=10**6)
    vocabulary = tr.data.Vocabulary(list(range(1, num_items + 1)), counts=counts)
    encoder = tr.models.BehaviorEncoder(vocabulary.size, 64, 2, 2, max_length=64)
    model = tr.models.NextBehaviorModel(encoder)
    model.build()
    scorer = tr.evaluation.ModelScorer(model, vocabulary)
    kind = "approximate" if "approximate" in shop else "exact"
    tr.serving.export_model(scorer, folder / "1", index=kind)
    return list(range(1, 10_001))


def measured(model: Path, items: list[Any], arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, batch in (("batched", 64), ("one by one", 1)):
        with serving(model, batch) as port:
            fill(port, items)
            asyncio.run(load(port, items, 20, 2.0))  # to be warm
            rates = arguments.rates if name == "batched" else arguments.rates[-1:]
            found[name] = {rate: asyncio.run(load(port, items, rate, arguments.seconds))
                           for rate in rates}  # fmt: skip
            found[name]["highest rate"] = highest(port, items, 20)
            if name == "batched" and arguments.swaps and "million" not in model.name:
                found["swaps"] = asyncio.run(swapping(port, items, model, arguments.swaps))
    return found


def highest(port: int, items: list[Any], rate: int) -> int:
    """Returns the highest of rates, each 1.5 times the one before, that is held."""
    held = 0
    while rate < 5000:
        about = asyncio.run(load(port, items, rate, 4.0))
        if about["p99_ms"] > 1e3 * LIMIT or about["failed"] or about["fallbacks"]:
            break
        held, rate = rate, int(1.5 * rate)
    return held


@contextlib.contextmanager
def serving(model: Path, batch: int):
    """Runs the server, and gives its port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    store = model.parent / f"{model.name}-{batch}.sqlite"
    options = ["--port", str(port), "--store", str(store), "--max-batch", str(batch)]
    options += ["--poll", "0.2", "--timeout", "5"]
    if model.name == "million":  # an exact search
        options += ["--threads", "2"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", str(model), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def fill(port: int, items: list[Any]) -> None:
    """Gives every user a history."""
    rng = random.Random(0)

    async def post() -> None:
        connection = Connection(port)
        for first in range(0, USERS, 50):
            events = [
                {"user": f"u{user}", "item": rng.choice(items), "time": 1e9 + number}
                for user in range(first, first + 50)
                for number in range(EVENTS)
            ]
            status, _ = await connection.post("/v1/events", {"events": events})
            assert status == 200, status
        connection.close()

    asyncio.run(post())


class Connection:
    """A connection that is kept open: the least that a client can do."""

    def __init__(self, port: int):
        self.port = port
        self.streams: Any = None

    async def post(self, path: str, body: Any) -> tuple[int, bytes]:
        content = json.dumps(body).encode()
        # The server ends connections that nothing came over for some seconds.
        if self.streams is None or self.streams[0].at_eof():
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        head = f"POST {path} HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        received = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(received.partition(b"content-length: ")[2].split(b"\r\n")[0])
        return int(received.split()[1]), await reader.readexactly(length)

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()


async def load(port: int, items: list[Any], rate: int, seconds: float) -> dict[str, Any]:
    """Asks at a rate, and returns latencies and what went wrong."""
    rng = random.Random(rate)
    free: list[Connection] = []
    latencies: list[float] = []
    counts = {"failed": 0, "fallbacks": 0}

    async def one(due: float) -> None:
        connection = free.pop() if free else Connection(port)
        user = f"u{rng.randrange(USERS)}"
        try:
            if rng.random() < 0.1:
                event = {"user": user, "item": rng.choice(items)}
                status, body = await connection.post("/v1/events", {"events": [event]})
            else:
                status, body = await connection.post("/v1/recommend", {"user": user, "k": 10})
        except (OSError, asyncio.IncompleteReadError):
            counts["failed"] += 1
            return
        latencies.append(loop.time() - due)
        counts["failed"] += status != 200
        counts["fallbacks"] += b'"fallback"' in body
        free.append(connection)

    loop = asyncio.get_running_loop()
    tasks = []
    due = loop.time()
    end = due + seconds
    while due < end:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - loop.time()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    for connection in free:
        connection.close()
    quantiles = statistics.quantiles(latencies, n=100)
    return {
        "requests": len(tasks),
        **counts,
        "p50_ms": round(1e3 * quantiles[49], 2),
        "p99_ms": round(1e3 * quantiles[98], 2),
    }


async def swapping(port: int, items: list[Any], model: Path, swaps: int) -> dict[str, Any]:
    """Publishes versions one after the other under load; one answer names one version."""
    seen: set[int] = set()
    wrong = failed = asked = 0
    done = asyncio.Event()
    alternatives = [await _answer(port, items)]

    async def ask() -> None:
        nonlocal wrong, failed, asked
        connection = Connection(port)
        while not done.is_set():
            asked += 1
            status, body = await connection.post("/v1/recommend", {"history": items[:5]})
            if status != 200:
                failed += 1
                continue
            answer = json.loads(body)
            seen.add(answer["version"])
            wrong += [one["item"] for one in answer["items"]] not in alternatives
            await asyncio.sleep(0.02)
        connection.close()

    tasks = [asyncio.create_task(ask()) for _ in range(4)]
    for version in range(2, 2 + swaps):
        await asyncio.to_thread(publish, model, version)
        while version not in seen:
            await asyncio.sleep(0.05)
    done.set()
    await asyncio.gather(*tasks)
    return {"swaps": len(seen) - 1, "requests": asked, "failed": failed, "wrong": wrong}


async def _answer(port: int, items: list[Any]) -> list[Any]:
    connection = Connection(port)
    _, body = await connection.post("/v1/recommend", {"history": items[:5]})
    connection.close()
    return [one["item"] for one in json.loads(body)["items"]]


def publish(model: Path, version: int) -> None:
    shutil.copytree(model / "1", model / f".{version}")
    (model / f".{version}").rename(model / str(version))


def renewed(page: str, path: Path) -> str:
    """Returns the page with the figures of a result file."""
    results = json.loads(path.read_text())
    about = f"{results['machine']['cores']} cores of {results['machine']['processor']}"
    if results["note"]:
        about += f"; {results['note']}"
    swaps = "".join(
        f"{found['swaps']['swaps']} versions of {shop} were swapped under load: of "
        f"{found['swaps']['requests']:,} requests {found['swaps']['failed']} failed, and "
        f"{found['swaps']['wrong']} were answered with what is no version's own.\n\n"
        for shop, found in results["shops"].items()
        if "swaps" in found
    )
    return between_marks(page, f"\n{about}:\n\n{table(results)}\n\n{swaps}")


def table(results: dict[str, Any]) -> str:
    """Returns a row a rate, and the highest rate that was held."""
    rows = [["shop", "calls", "requests a second", "p50, ms", "p99, ms", "failed", "fallbacks"]]
    for shop, found in results["shops"].items():
        for calls in ("batched", "one by one"):
            for rate, about in found[calls].items():
                if rate == "highest rate":
                    limit = f"below {1e3 * LIMIT:.0f}"
                    rows.append([shop, calls, f"{about} at most", "", limit, "0", "0"])
                    continue
                figures = [about[name] for name in ("p50_ms", "p99_ms", "failed", "fallbacks")]
                rows.append([shop, calls, str(rate), *map(str, figures)])
    return markdown(rows)


if __name__ == "__main__":
    main()
