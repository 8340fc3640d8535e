"""The tables of docs/speed.md, made of the result files.

    python benchmarks/speed/speed_tables.py

What stands between the two marks of the page is replaced; the text around it is written by hand.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, markdown

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "speed.md"
NAMES = {
    "ours": "**tfrec_llm**",
    "ours_narrow": "**tfrec_llm**, narrow",
    "rectools": "RecTools SASRecModel",
    "rectools_flat": "RecTools fast_transformers",
    "replay": "RePlay SasRec",
}
# Beside which of ours a row stands that is not beside "ours": who has the same sizes.
BESIDE = {"ours_narrow": "ours_narrow", "rectools": "ours_narrow"}
LOSSES = {"softmax": "Full softmax", "sampled": "256 sampled negatives"}
PEERS = {"sasrec": "RecTools SASRec, full softmax", "esasrec": "RecTools eSASRec"}


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(renewed(page, HERE / "results"), encoding="utf-8")


def renewed(page: str, results: Path) -> str:
    """Returns the page with the tables that the result files give."""
    return between_marks(page, tables(results))


def tables(results: Path) -> str:
    """Returns the Markdown of all data sets that were measured."""
    parts = []
    for data in ("ml-1m", "beauty_s3"):
        speed, best = results / f"peers_{data}.json", results / f"to_best_{data}.json"
        found = [json.loads(path.read_text()) for path in (speed, best) if path.exists()]
        if found:
            parts.append(f"\n## {data}\n\n{heading(found[0])}\n")
        if speed.exists():
            parts += [
                f"\n{LOSSES[loss]}:\n\n{epochs(one)}\n"
                for loss, one in json.loads(speed.read_text())["losses"].items()
            ]
        if best.exists():
            parts.append(f"\n{to_best(json.loads(best.read_text()))}\n")
    if not parts:
        parts.append("\nNo result files of peers yet.\n")
    step = results / "training_step.json"
    if step.exists():
        parts.append(f"\n{of_limit(json.loads(step.read_text()))}\n")
    options = results / "training_options.json"
    if options.exists():
        parts.append(f"\n{of_options(json.loads(options.read_text()))}\n")
    return "".join(parts) + "\n"


def of_limit(result: dict[str, Any]) -> str:
    """Returns the training step as a share of what the machine multiplies, and where it goes."""
    rows = [["step", "us a behaviour", "GFLOP/s", "of the limit", "MB added"]]
    for name, one in result["steps"].items():
        rows.append(
            [
                name,
                f"{one['microseconds_a_behavior']:.1f}",
                f"{one['gigaflops']:.0f}",
                f"{100 * one['share_of_product_rate']:.0f} %",
                f"{one['step_megabytes']:,.0f}",
            ]
        )
    machine, rates = result["machine"], result["products"]
    goes = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result["where"].items())
    return (
        f"## Close to the limit\n\nA step at the shape of ml-1m with full softmax takes "
        f"{result['flops_a_behavior'] / 1e6:.1f} MFLOP a behaviour. The {machine['cores']} cores "
        f"of {machine['processor']} multiply matrices of its shapes at "
        f"{rates['gigaflops_float32']:.0f} GFLOP/s in float32 and "
        f"{rates['gigaflops_bfloat16']:.0f} in bfloat16, which is the limit.\n\n"
        f"{markdown(rows)}\n\n"
        f"Where the time of the library's operations goes in bfloat16: {goes}."
    )


def of_options(result: dict[str, Any]) -> str:
    """Returns what each option of training brought."""
    rows = [["option", "behaviours/s", "of plain", "GB", "first epoch, s", "validation NDCG@10"]]
    plain = next(iter(result["options"].values()))["behaviors_per_second"]
    for name, one in result["options"].items():
        rows.append(
            [
                name,
                f"{one['behaviors_per_second']:,.0f}",
                f"{one['behaviors_per_second'] / plain:.2f}",
                f"{one['memory_gb']:.2f}",
                f"{one['first_epoch_seconds']:.0f}",
                f"{one['validation']:.4f}".removeprefix("0"),
            ]
        )
    machine = result["machine"]
    return (
        f"## Options of training\n\nClicks of eshop, {result['epochs']} epochs, one seed, each "
        f"option by itself beside the plain setting; {machine['cores']} cores of "
        f"{machine['processor']}, "
        "which other work shared. Bfloat16 helps where the processor multiplies it; averages and "
        f"schedules want more epochs than these.\n\n{markdown(rows)}"
    )


def heading(result: dict[str, Any]) -> str:
    data, machine = result["data"], result["machine"]
    versions = {k: v for one in result["versions"].values() for k, v in one.items() if k != "numpy"}
    return (
        f"{data['users']:,} users, {data['items']:,} items, {data['behaviors_an_epoch']:,} "
        f"behaviours an epoch; padded, {100 * data['padding']:.0f} % of the places would be empty. "
        f"{measured(result)}"
        f"{machine['cores']} cores of {machine['processor']} ({', '.join(machine['arithmetic'])}); "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + "."
    )


def measured(result: dict[str, Any]) -> str:
    """Returns how much was measured, of files of epochs."""
    if "losses" not in result:
        return ""
    rounds = max(
        len(runs)
        for found in result["losses"].values()
        for one in found.values()
        for runs in one["rounds"].values()
    )
    return f"Rounds of {result['epochs']} epochs, of peers {result['peer_epochs']}: {rounds}. "


def epochs(found: dict[str, Any]) -> str:
    """Returns what training and recommending took, in the fastest way and plainly."""
    seconds_columns = ["s an epoch", "of ours", "plainly, s", "of ours", "of our fastest"]
    memory_columns = ["us a behaviour", "MB added", "MB", "users/s", "loss", "way"]
    rows = [["", *seconds_columns, *memory_columns]]
    for name, one in found.items():
        ours = found.get(BESIDE.get(name)) or found.get("ours")
        fastest, plain = both_ways(one)
        times = ["", "", ""]
        if ours:
            our_fastest, our_plain = both_ways(ours)
            ratios = (fastest / our_fastest, plain / our_plain, plain / our_fastest)
            times = [f"{ratio:.1f}" for ratio in ratios]
        rows.append(
            [
                NAMES[name],
                f"{fastest:.1f}",
                times[0],
                f"{plain:.1f}",
                *times[1:],
                f"{one['microseconds_a_behavior']:.1f}",
                f"{one['added_megabytes']:,.0f}",
                f"{one['process_megabytes']:,.0f}",
                f"{one['users_a_second']:,.0f}",
                f"{one['first_loss']:.2f}",
                one["way"],
            ]
        )
    return markdown(rows)


def both_ways(one: dict[str, Any]) -> list[float]:
    """Returns the seconds of an epoch in the fastest way and plainly."""
    return [one["seconds_an_epoch"], median_seconds(one["rounds"]["plain"])]


def median_seconds(rounds: list[dict[str, Any]]) -> float:
    """Returns the median seconds of all epochs of some rounds."""
    return statistics.median(seconds for one in rounds for seconds in one["seconds_an_epoch"])


def to_best(results: dict[str, Any]) -> str:
    """Returns how long each took to the peer's best validation NDCG@10."""
    rows = [["peer", "way", "its best NDCG@10", "after", "ours", "after", "times faster"]]
    for peer, name in PEERS.items():
        found = results.get(peer, {})
        if "best" not in found:
            continue
        times, curve = found["times_faster"], found["ours"]["curve"]
        rows.append(
            [
                name,
                found["peer"]["way"],
                f"{found['best']['ndcg@10']:.4f}".removeprefix("0"),
                time_to(found["best"], found["peer"]["curve"]),
                f"{curve[-1]['ndcg@10']:.4f}".removeprefix("0"),
                time_to(curve[-1], curve),
                f"{times:.1f}" if times else "not reached",
            ]
        )
    return markdown(rows)


def time_to(epoch: dict[str, float], curve: list[dict[str, float]]) -> str:
    """Returns when a training came to an epoch of its curve."""
    return f"{epoch['seconds']:,.0f} s, {curve.index(epoch) + 1} epochs"


if __name__ == "__main__":
    main()
