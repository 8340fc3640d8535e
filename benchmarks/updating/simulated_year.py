"""A simulated year of a shop: is the alarm right, and do weekly updates keep a model fresh?

    python benchmarks/updating/simulated_year.py [--users 1500] [--items 300] [--note TEXT]

A `ChangingShop` has seasons, items that arrive, and a day on which tastes turn. A recommender is
trained on the first weeks and exported. Then, week after week: the newest version recommends
before each behaviour of the week, what it served is monitored against its training's snapshot,
and `update` teaches a copy the week and publishes it if it is no worse. Every few weeks another
recommender is trained from scratch on all there is. All are judged by what each customer does
first in the week that follows, which none of them has seen. Prints a table, and writes
results/simulated_year.json beside this script, the picture docs/images/simulated_year.png and the
table of docs/updating.md.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, machine, markdown, number, write

RESULT = Path(__file__).parent / "results" / "simulated_year.json"
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "simulated_year.png"
PAGE = Path(__file__).parents[2] / "docs" / "updating.md"
DAYS, WEEK, DAY = 364, 7, 86_400_000_000
FIRST_WEEK, SHIFT_WEEK, RETRAINED_EVERY = 16, 36, 6
SHOP = {"days": DAYS, "visits": 2.0, "mean_length": 4.0, "season": 0.3, "new_items": 0.3}
MODEL = {"emb_dim": 32, "num_layers": 1, "num_heads": 2, "max_length": 32, "dropout": 0.2}
RATE, EPOCHS, UPDATE_EPOCHS = 3e-3, 12, 2
# A week of so small a shop cannot show leads of 2 %.
TOLERANCE = 0.1
METRIC = "ndcg@10"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1500)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--weeks", type=int, default=DAYS // WEEK, help="end sooner, for a trial")
    parser.add_argument("--note", default="", help="about the machine, kept with the result")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        weeks = simulate(arguments.users, arguments.items, arguments.weeks, Path(folder) / "shop")
    result = {
        "machine": machine("tensorflow", "keras", "numpy"),
        "note": arguments.note,
        "seconds": round(time.perf_counter() - start, 1),
        "shop": {"num_users": arguments.users, "num_items": arguments.items, **SHOP},
        "model": MODEL,
        "shift_week": SHIFT_WEEK,
        "summary": summary(weeks),
        "weeks": weeks,
    }
    write(arguments.result, result)
    draw(result, arguments.picture)
    page = renewed(arguments.page.read_text(encoding="utf-8"), arguments.result)
    arguments.page.write_text(page, encoding="utf-8")
    print(table(result))


def simulate(num_users: int, num_items: int, last_week: int, folder: Path) -> list[dict[str, Any]]:
    """Returns what every week from the first export on was like."""
    import tfrec_llm as tr

    shop = tr.data.ChangingShop(num_users, num_items, shift_day=SHIFT_WEEK * WEEK, **SHOP)
    log = shop.simulate()
    week_of = shop.days_of(log) // WEEK

    def until(week: int) -> Any:
        return log.take(week_of < week)

    def trained(week: int) -> tuple[Any, float, int]:
        """Trains on all before a week, from scratch; tells seconds and behaviours read, too."""
        start = time.perf_counter()
        known = until(week)
        split = tr.data.temporal_split(known, valid=0.1, test=0.001)
        rec = tr.Recommender("next", learning_rate=RATE, **MODEL)
        rec.fit(
            split.train,
            validation=split.valid,
            epochs=EPOCHS,
            patience=3,
            filter_seen=False,
            verbose=0,
        )
        epochs = len(rec.curve)
        learned = epochs * read_behaviors(split.train) + read_behaviors(known)
        # What was held out to choose the epoch is learned, too.
        rec.fit(known, warm_start=True, epochs=1, verbose=0)
        return rec, time.perf_counter() - start, learned

    frozen, _, _ = trained(FIRST_WEEK)
    recent = int(log.times()[week_of >= FIRST_WEEK - 4].min())
    frozen.export(folder, filter_seen=False, snapshot_since=recent)
    champion, since = frozen, None
    model: Any = None
    served: list[Any] = []
    weeks: list[dict[str, Any]] = []
    for week in range(FIRST_WEEK, last_week - 1):
        found: dict[str, Any] = {"week": week}
        if model is None or model.path != newest(folder):
            model = tr.serving.ExportedModel(newest(folder))
        served = [*served[-4:], serve(model, log, week_of, week, found)]
        record = tr.monitoring.ServedLog(*map(pa.concat_tables, zip(*served, strict=True)))
        report = tr.monitoring.monitor(record, model, window="7d", bucket="1d", within="1h")
        found["alarms"] = [alarm.name for alarm in report.alarms]
        found["drift"] = {drift.name: round(drift.excess, 4) for drift in report.drifts}
        found["click_through"] = report.quality["click_through"]
        update = tr.updating.update(
            champion,
            until(week + 1),
            since=since,
            epochs=UPDATE_EPOCHS,
            tolerance=TOLERANCE,
            filter_seen=False,
            export_to=folder,
            seed=week,
        )
        found |= {"accepted": update.accepted, "lead": vars(update.lead)}
        found |= {"new_items": update.new_items, "update_seconds": update.seconds}
        found["update_behaviors"] = UPDATE_EPOCHS * update.learned
        if update.accepted:
            champion, since = update.recommender, update.trained_until
        rivals = {"updated": champion, "never": frozen}
        if (week + 1 - FIRST_WEEK) % RETRAINED_EVERY == 0:
            scratch, found["scratch_seconds"], found["scratch_behaviors"] = trained(week + 1)
            rivals["scratch"] = scratch
        judge(rivals, log, week_of, week + 1, found)
        weeks.append(found)
        print(json.dumps(found), file=sys.stderr, flush=True)
    return weeks


def read_behaviors(log: Any) -> int:
    """Returns how many behaviours an epoch reads: of every user the newest."""
    return int(np.minimum(np.bincount(log.user_codes()[0]), MODEL["max_length"]).sum())


def serve(model: Any, log: Any, week_of: np.ndarray, week: int, found: dict) -> tuple:
    """Recommends before each behaviour of a week; returns lists and events as they are recorded."""
    import tfrec_llm as tr
    from tfrec_llm.serving.recording import EVENTS, LISTS, SCHEMAS

    known = log.take(week_of <= week)
    sequences = tr.data.UserSequences.from_log(known, model.vocabulary)
    rows = np.repeat(np.arange(len(sequences)), sequences.lengths)
    ids = np.full(len(known), "", object)
    ids[:] = known.take(known.order()).item.to_pylist()
    times = sequences.times
    first = int(log.times()[week_of == week].min())
    asked = np.flatnonzero(times >= first)
    asked = asked[np.argsort(times[asked], kind="stable")]
    histories = [ids[max(sequences.offsets[rows[one]], one - 200) : one].tolist() for one in asked]
    start = time.perf_counter()
    lists = []
    for begin in range(0, len(asked), 256):
        lists += model.recommend(histories[begin : begin + 256], filter_seen=False)
    found["milliseconds_a_list"] = round(1e3 * (time.perf_counter() - start) / len(asked), 3)
    names = sequences.user_ids.take(pa.array(rows[asked])).cast(pa.string())
    moments = pa.array(times[asked])
    columns = {
        "time": (moments.to_numpy() - 1_000_000).astype("datetime64[us]"),
        "user": names,
        "version": [model.version] * len(asked),
        "source": [one.source for one in lists],
        "milliseconds": [5.0] * len(asked),
        "history_length": (asked - sequences.offsets[rows[asked]]).astype(np.int32),
        "history": [[str(item) for item in history] for history in histories],
        "behaviors": [None] * len(asked),
        "items": [[str(item) for item in one.items] for one in lists],
        "scores": [one.scores for one in lists],
    }
    events = {
        "time": moments.to_numpy().astype("datetime64[us]"),
        "user": names,
        "item": [str(ids[one]) for one in asked],
        "behavior": [""] * len(asked),
    }
    found["behaviors"] = len(asked)

    def as_recorded(kind: str, values: dict[str, Any]) -> pa.Table:
        schema = SCHEMAS[kind]
        arrays = [pa.array(values[field.name]).cast(field.type) for field in schema]
        return pa.table(arrays, schema=schema)

    return as_recorded(LISTS, columns), as_recorded(EVENTS, events)


def judge(rivals: dict, log: Any, week_of: np.ndarray, week: int, found: dict) -> None:
    """Notes how well each ranks what every customer does first in a week."""
    import tfrec_llm as tr
    from tfrec_llm.updating.window import first_of_users

    test = first_of_users(log, week_of == week, history=log.take(week_of < week))
    comparison = tr.evaluation.compare(
        rivals, test, k=10, filter_seen=False, metrics=["ndcg"], confidence=None
    )
    found["judged_users"] = comparison["updated"].evaluated.users
    found[METRIC] = {name: round(report[METRIC], 5) for name, report in comparison.items()}
    if "scratch" in rivals:
        lead = comparison.difference("updated", "scratch", METRIC)
        found["lead_over_scratch"] = vars(lead)


def newest(folder: Path) -> Path:
    from tfrec_llm.serving.version_folder import newest_version

    return newest_version(folder)


def summary(weeks: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what the year showed."""
    rung = [one["week"] for one in weeks if one["alarms"]]
    compared = [one for one in weeks if "scratch" in one[METRIC]]
    before = [one for one in weeks if one["week"] + 1 < SHIFT_WEEK]
    after = [one for one in weeks if one["week"] + 1 > SHIFT_WEEK]

    def mean(rows: list[dict], name: str) -> float | None:
        return float(np.mean([row[METRIC][name] for row in rows])) if rows else None

    def sizes(name: str) -> float | None:
        values = [one[name] for one in weeks if name in one]
        return float(np.mean(values)) if values else None

    return {
        "alarms_before_the_shift": [week for week in rung if week < SHIFT_WEEK],
        "alarms_from_the_shift_on": [week for week in rung if week >= SHIFT_WEEK],
        "accepted": sum(one["accepted"] for one in weeks),
        "updates": len(weeks),
        "updated": mean(compared, "updated"),
        "scratch": mean(compared, "scratch"),
        "never": mean(compared, "never"),
        "worst_against_scratch": min(
            (one[METRIC]["updated"] / one[METRIC]["scratch"] - 1 for one in compared), default=None
        ),
        "updated_before_the_shift": mean(before, "updated"),
        "never_before_the_shift": mean(before, "never"),
        "updated_after_the_shift": mean(after, "updated"),
        "never_after_the_shift": mean(after, "never"),
        "update_seconds": sizes("update_seconds"),
        "scratch_seconds": sizes("scratch_seconds"),
        "update_behaviors": sizes("update_behaviors"),
        "scratch_behaviors": sizes("scratch_behaviors"),
    }


def table(result: dict[str, Any]) -> str:
    """Returns the weeks in which a model was trained from scratch, beside the others."""
    rows = [["week", "trained from scratch", "updated weekly", "lead", "never updated"]]
    for one in result["weeks"]:
        if "scratch" not in one[METRIC]:
            continue
        lead = one["lead_over_scratch"]
        interval = f"{number(lead['value'], signed=True)} [{number(lead['low'], signed=True)}, "
        rows.append(
            [
                str(one["week"] + 1),
                *(number(one[METRIC][name]) for name in ("scratch", "updated")),
                f"{interval}{number(lead['high'], signed=True)}]",
                number(one[METRIC]["never"]),
            ]
        )
    return markdown(rows)


def renewed(page: str, path: Path) -> str:
    """Returns the page with what the result file gives."""
    if not path.exists():
        return between_marks(page, "\nNo result file yet.\n\n")
    result = json.loads(path.read_text())
    found, shop = result["summary"], result["shop"]
    early, late = found["alarms_before_the_shift"], found["alarms_from_the_shift_on"]
    share = found["update_behaviors"] / found["scratch_behaviors"]
    seconds = found["update_seconds"] / found["scratch_seconds"]
    text = (
        f"{shop['num_users']:,} customers, {shop['num_items']} items, tastes turn with week "
        f"{result['shift_week']}; {result['machine']['cores']} cores"
        f"{', ' + result['note'] if result['note'] else ''}; {result['seconds']:.0f} s in all.\n\n"
        f"- Alarms before the turn: {_listed(early)}; from it on: {_listed(late)}.\n"
        f"- {found['accepted']} of {found['updates']} updates were accepted. Updated weekly, "
        f"NDCG@10 is {number(found['updated'])} on average where training from scratch reaches "
        f"{number(found['scratch'])} and the first model {number(found['never'])}; at worst its "
        f"lead over scratch is {100 * found['worst_against_scratch']:+.1f} %.\n"
        f"- An update learns from {found['update_behaviors']:,.0f} behaviours, epochs counted, in "
        f"{found['update_seconds']:.1f} s; training from scratch from "
        f"{found['scratch_behaviors']:,.0f} in {found['scratch_seconds']:.1f} s: "
        f"{100 * share:.0f} % of the behaviours and {100 * seconds:.0f} % of the time."
    )
    return between_marks(page, f"\n{text}\n\n{table(result)}\n\n")


def _listed(weeks: list[int]) -> str:
    return f"in weeks {', '.join(map(str, weeks))}" if weeks else "none"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws the scores and the drift over the weeks."""
    from matplotlib.figure import Figure

    weeks = result["weeks"]
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    scores, drift = figure.subplots(2, sharex=True)
    for name, label, style in (
        ("updated", "updated weekly", "-"),
        ("never", "never updated", "-"),
        ("scratch", "trained from scratch", "o"),
    ):
        points = [(one["week"] + 1, one[METRIC][name]) for one in weeks if name in one[METRIC]]
        scores.plot(*zip(*points, strict=True), style, label=label)
    scores.set_ylabel("NDCG@10 of the week")
    scores.set_ylim(bottom=0)
    for name in weeks[0]["drift"]:
        if not name.startswith("embedding") or name == "embedding 1":
            points = [(one["week"], one["drift"].get(name, np.nan)) for one in weeks]
            drift.plot(*zip(*points, strict=True), label=name)
    drift.axhline(0.2, color="tab:gray", linewidth=0.8, linestyle=":")
    rung = [one["week"] for one in weeks if one["alarms"]]
    drift.plot(rung, [0.2] * len(rung), "v", color="tab:red", label="alarm")
    drift.set_ylabel("PSI beyond chance")
    drift.set_xlabel("week")
    for axes in (scores, drift):
        axes.axvline(result["shift_week"] - 0.5, color="black", linewidth=0.8, linestyle="--")
        axes.legend(fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
