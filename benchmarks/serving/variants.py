"""What the variants of an exported model cost in quality, and save in size and time.

    python benchmarks/serving/variants.py [--epochs 3] [--items 100000]

Trains on the clicks of the package's clothing shop for a few epochs, exports every variant, and
ranks the catalogue for every session of the test split by each: HR@10 and NDCG@10 beside those of
`Recommender.evaluate`, and the greatest difference of any score. As the shop has few items, size
and time are measured for a catalogue of `--items` random vectors, too. Times are of one history of
twenty behaviours, one after the other. Writes results/variants.json beside this script and the
table of docs/export.md.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, machine, markdown, number, write

RESULTS = Path(__file__).parent / "results" / "variants.json"
PAGE = Path(__file__).parents[2] / "docs" / "export.md"
PRECISIONS = ("float32", "float16", "int8")
FORMATS = {"tf_saved_model": "SavedModel", "onnx": "ONNX"}
PACKAGES = ("tensorflow", "keras", "onnxruntime", "tf2onnx")
WIDTH, LENGTH, K, ROWS = 64, 20, 10, 512


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--users", type=int, help="sessions of the test split (default: all)")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=300, help="to time")
    parser.add_argument("--note", default="", help="about the machine, kept with the results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)

    import tfrec_llm as tr

    split = tr.data.leave_last_out(tr.data.load("eshop"))
    test = split.test if arguments.users is None else split.test.take(np.arange(arguments.users))
    sizes = {"emb_dim": 64, "num_layers": 2, "num_heads": 2, "max_length": 50}
    rec = tr.Recommender("next", **sizes, dropout=0.3, batch_size=64, seed=0)
    rec.fit(split.train, epochs=arguments.epochs, verbose=2)
    options: dict[str, Any] = {"k": K, "filter_seen": False, "metrics": ("hr", "ndcg")}
    results: dict[str, Any] = {
        "machine": machine(*PACKAGES),
        "note": arguments.note,
        "epochs": arguments.epochs,
        "users": len(test),
        "items": len(rec.vocabulary),
        "evaluate": dict(rec.evaluate(test, **options)),
        "variants": {},
        "many_items": arguments.items,
        "many": {},
    }
    sequences = rec.sequences(test.history).select(test.user.to_pylist())
    histories = [
        rec.vocabulary.decode(sequences[row][-WIDTH:]).tolist() for row in range(len(sequences))
    ]
    targets = rec.vocabulary.encode(test.item) - 3
    expected = rec.score(sequences)[:, 3:]
    many = random_scorer(arguments.items)
    for format in FORMATS:
        for precision in PRECISIONS:
            name = f"{FORMATS[format]}, {precision}"
            about = measured(rec, format, precision, arguments.calls)
            found = about.pop("scores")(histories)
            ranks = ranks_of(found, targets)
            gains = np.where(ranks < K, 1 / np.log2(ranks + 2), 0.0)
            about |= {
                "hr@10": float((ranks < K).mean()),
                "ndcg@10": float(gains.mean()),
                "difference": float(np.abs(found - expected).max()),
            }
            results["variants"][name] = about
            results["many"][name] = measured(many, format, precision, arguments.calls)
            results["many"][name].pop("scores")
            print(name, about, results["many"][name], file=sys.stderr, flush=True)
    write(arguments.results, results)
    page = arguments.page.read_text(encoding="utf-8")
    arguments.page.write_text(renewed(page, arguments.results), encoding="utf-8")
    print(table(results))


def random_scorer(num_items: int) -> Any:
    """Returns a model of a large catalogue, not trained."""
    import tfrec_llm as tr

    vocabulary = tr.data.Vocabulary([f"i{number}" for number in range(num_items)])
    encoder = tr.models.BehaviorEncoder(vocabulary.size, 64, 2, 2, max_length=50)
    model = tr.models.NextBehaviorModel(encoder)
    model.build()
    return tr.evaluation.ModelScorer(model, vocabulary)


def measured(scorer: Any, format: str, precision: str, calls: int) -> dict[str, Any]:
    """Exports a variant; returns its size, the time of a call, and what gives its scores."""
    import tfrec_llm as tr

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("shop/1" if format == "tf_saved_model" else "shop.onnx")
        tr.serving.export_model(scorer, path, precision=precision, format=format, filter_seen=False)
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        # What is beside the graph, such as ids for people, is the same for all.
        files = [one for one in files if "assets.extra" not in one.parts]
        make = of_saved_model if format == "tf_saved_model" else of_onnx
        lists, scores = make(path)
        ids = scorer.vocabulary.ids.to_pylist()
        rng = np.random.default_rng(0)
        times = []
        for call in range(calls + 20):
            history = [ids[place] for place in rng.integers(len(ids), size=LENGTH)]
            start = time.perf_counter()
            lists(history)
            if call >= 20:  # the first ones load and warm up
                times.append(1e3 * (time.perf_counter() - start))
        return {
            "megabytes": round(sum(one.stat().st_size for one in files) / 1e6, 3),
            "p50_ms": round(float(np.percentile(times, 50)), 2),
            "p99_ms": round(float(np.percentile(times, 99)), 2),
            "scores": scores,
        }


def of_saved_model(path: Path) -> tuple[Callable[..., Any], Callable[..., np.ndarray]]:
    """Returns what lists the best items for a history, and what scores all items for many."""
    from tfrec_llm.serving import ExportedModel

    model = ExportedModel(path)
    ids = model.vocabulary.ids.to_pylist()

    def scores(histories: list[list[Any]]) -> np.ndarray:
        found = [
            model.score(
                histories[first : first + ROWS], [ids] * len(histories[first : first + ROWS])
            )
            for first in range(0, len(histories), ROWS)
        ]
        return np.array([row for block in found for row in block], np.float32)

    return lambda history: model.recommend([history], k=K, filter_seen=False), scores


def of_onnx(path: Path) -> tuple[Callable[..., Any], Callable[..., np.ndarray]]:
    """The same of an ONNX file, whose scores are sorted here."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes())
    about = json.loads(session.get_modelmeta().custom_metadata_map["tfrec_llm"])
    index = {item: about["first_index"] + place for place, item in enumerate(about["ids"])}

    def read(histories: list[list[Any]]) -> np.ndarray:
        width = max(map(len, histories))
        rows = [[0] * (width - len(one)) + [index[item] for item in one] for one in histories]
        return session.run(None, {"history": np.array(rows, np.int32)})[0]

    def best(history: list[Any]) -> list[Any]:
        found = read([history])[0]
        places = np.argpartition(-found, K)[:K]
        return [about["ids"][place] for place in places[np.argsort(-found[places])]]

    def scores(histories: list[list[Any]]) -> np.ndarray:
        starts = range(0, len(histories), ROWS)
        return np.concatenate([read(histories[first : first + ROWS]) for first in starts])

    return best, scores


def ranks_of(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns how many items stand above the target; of equal ones the earlier, as everywhere."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < targets[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def table(results: dict[str, Any]) -> str:
    many = f"{results['many_items']:,} items"
    rows = [["variant", "HR@10", "NDCG@10", "greatest difference of a score", "MB", "p50, ms",
             f"{many}: MB", "p50, ms"]]  # fmt: skip
    own = results["evaluate"]
    rows.append(["`evaluate`", number(own["hr@10"]), number(own["ndcg@10"]), *[""] * 5])
    for name, about in results["variants"].items():
        large = results["many"][name]
        rows.append(
            [
                name,
                number(about["hr@10"]),
                number(about["ndcg@10"]),
                f"{about['difference']:.1g}",
                f"{about['megabytes']:.2f}",
                f"{about['p50_ms']:.1f}",
                f"{large['megabytes']:.1f}",
                f"{large['p50_ms']:.1f}",
            ]
        )
    return markdown(rows)


def renewed(page: str, path: Path) -> str:
    """Returns the page with the table that the result file gives."""
    if not path.exists():
        return between_marks(page, "\nNo result file yet.\n\n")
    results = json.loads(path.read_text())
    about = results["machine"]
    text = (
        f"All {results['users']:,} sessions of the clothing shop's test split, whose catalogue has "
        f"{results['items']} items, after {results['epochs']} epochs; {about['cores']} cores of "
        f"{about['processor']}{', ' + results['note'] if results['note'] else ''}."
    )
    return between_marks(page, f"\n{text}\n\n{table(results)}\n\n")


if __name__ == "__main__":
    main()
