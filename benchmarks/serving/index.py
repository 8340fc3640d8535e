"""What approximate search costs in recall, and saves in time and memory.

    python benchmarks/serving/index.py [--sizes 10000 100000 1000000] [--users 300]

Item vectors are drawn around the centres of a thousand kinds, of different lengths, as training
leaves them; a user's vector is the mean of four items', with noise. Ten items are wanted. Each
index is asked for one user after the other, by one thread. Recall is the share of the ten best
that is found; memory is what the saved index takes. usearch is measured, too, if it is there: it
builds its graph on all cores. Prints a table and writes results/index.json beside this script,
the picture docs/images/index.png and the table of docs/export.md.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, machine, markdown, write

RESULTS = Path(__file__).parent / "results" / "index.json"
DOCS = Path(__file__).parents[2] / "docs"
PICTURE, PAGE = DOCS / "images" / "index.png", DOCS / "export.md"
DIM, K = 64, 10
INDEXES: dict[str, dict[str, Any] | None] = {
    "exact": None,
    "approximate, 1/32 of the lists": {"share": 32},
    "approximate, 1/8 of the lists": {"share": 8},
    "product codes, 16 bytes": {"share": 8, "num_codes": 16},
    "product codes, 32 bytes": {"share": 8, "num_codes": 32},
}
# Searched for at every step through the graph, as many as usearch takes by default and more.
EXPANSIONS = (64, 512)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--note", default="", help="about the machine, kept with the results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)

    import faiss

    faiss.omp_set_num_threads(1)
    results: dict[str, Any] = {
        "machine": machine("numpy", "faiss-cpu"),
        "note": arguments.note,
        "sizes": {str(size): measured(size, arguments.users) for size in arguments.sizes},
    }
    write(arguments.results, results)
    draw(results, arguments.picture)
    page = arguments.page.read_text(encoding="utf-8")
    arguments.page.write_text(renewed(page, arguments.results), encoding="utf-8")
    print(table(results))


def measured(size: int, num_users: int) -> dict[str, Any]:
    """Returns recall, milliseconds, megabytes and seconds of each index."""
    from tfrec_llm.serving import ApproximateIndex, ExactIndex

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1000, DIM)).astype(np.float32)
    vectors = centres[rng.integers(1000, size=size)]
    vectors += 0.7 * rng.normal(size=(size, DIM)).astype(np.float32)
    vectors *= 0.2 * np.exp(0.3 * rng.normal(size=(size, 1))).astype(np.float32)
    users = 3 * vectors[rng.integers(size, size=(num_users, 4))].mean(axis=1)
    users += 0.2 * rng.normal(size=users.shape).astype(np.float32)
    makers: dict[str, Callable[[], Any]] = {}
    for name, options in INDEXES.items():
        if options is None:
            makers[name] = partial(ExactIndex, DIM)
        else:
            probes = max(1, round(size**0.5 / options["share"]))
            codes = options.get("num_codes")
            makers[name] = partial(ApproximateIndex, DIM, probes=probes, num_codes=codes)
    if importlib.util.find_spec("usearch") is not None:
        makers |= {f"usearch, {width} candidates": partial(Usearch, width) for width in EXPANSIONS}
    found, best = {}, None
    for name, make in makers.items():
        start = time.perf_counter()
        index = make()
        index.add(np.arange(size), vectors)
        built = time.perf_counter() - start
        lists, times = [], []
        for user in users:
            start = time.perf_counter()
            lists.append(index.search(user[None], K).items[0])
            times.append(1e3 * (time.perf_counter() - start))
        if best is None:
            best = lists
        hits = [np.isin(own, wanted).mean() for own, wanted in zip(lists, best, strict=True)]
        with tempfile.NamedTemporaryFile() as file:
            index.save(file.name)
            megabytes = Path(file.name).stat().st_size / 1e6
        found[name] = {
            "recall": round(float(np.mean(hits)), 4),
            "p50_ms": round(float(np.percentile(times, 50)), 3),
            "p99_ms": round(float(np.percentile(times, 99)), 3),
            "megabytes": round(megabytes, 2),
            "seconds_to_build": round(built, 2),
        }
        print(size, name, found[name], file=sys.stderr, flush=True)
    return found


class Usearch:
    """The other kept library that was thought of: a graph of near neighbours (HNSW)."""

    def __init__(self, expansion: int):
        from usearch.index import Index

        self._index = Index(ndim=DIM, metric="ip", dtype="f32", expansion_search=expansion)

    def add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        self._index.add(items, vectors)

    def search(self, queries: np.ndarray, k: int) -> Any:
        from tfrec_llm.serving.item_index import Nearest

        found = self._index.search(queries, k, threads=1)
        return Nearest(np.atleast_2d(found.keys), -np.atleast_2d(found.distances))

    def save(self, path: str) -> None:
        self._index.save(path)


def table(results: dict[str, Any]) -> str:
    rows = [["items", "index", "recall@10", "p50, ms", "p99, ms", "MB", "s to build"]]
    for size, found in results["sizes"].items():
        for name, about in found.items():
            rows.append([f"{int(size):,}", name, *(f"{value:g}" for value in about.values())])
    return markdown(rows)


def renewed(page: str, path: Path) -> str:
    """Returns the page with the table of a result file."""
    results = json.loads(path.read_text())
    about = f"Measured on {results['machine']['processor']}"
    if results["note"]:
        about += f"; {results['note']}"
    return between_marks(page, f"\n{about}:\n\n{table(results)}\n\n", "index")


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws recall against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for size, found in results["sizes"].items():
        points = [(about["p50_ms"], about["recall"]) for about in found.values()]
        axes.plot(*zip(*points, strict=True), "o", label=f"{int(size):,} items")
    for name, about in list(results["sizes"].values())[-1].items():
        place = about["p50_ms"], about["recall"]
        axes.annotate(name, place, xytext=(4, -10), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("median time of a search, ms")
    axes.set_ylabel("recall@10")
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
