"""`tfrec-llm demo`: the whole way on the clicks of a clothing shop, which come with the package."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec_llm.cli.argument_types import positive, whole
from tfrec_llm.cli.framework import progress, recommender_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tfrec_llm.data.behavior_log import BehaviorLog

SUMMARY = "train on the clicks of a clothing shop, compare, show recommendations in words"
EXAMPLE = """example:
  tfrec-llm demo --objective masked --output shop

Nothing is downloaded: the clicks come with the package. Training takes a few minutes."""

_SETTINGS: dict[str, dict[str, Any]] = {
    # What a search found on these clicks, see the page on tuning.
    "next": {
        "dropout": 0.1,
        "attention_dropout": 0.3,
        "filter_share": 0.5,
        "weight_averaging": 0.7,
        "learning_rate": 9e-4,
        "batch_size": 16,
    },
    "masked": {
        "dropout": 0.2,
        "batch_size": 24,
        "objective_options": {"mask_rate": 0.3, "newest_rate": 0.3},
    },
}
_SHOWN = ["category", "colour", "price"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--objective",
        choices=sorted(_SETTINGS, reverse=True),
        default="next",
        help="each click predicts the next, or hidden clicks are guessed from the others "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=positive, default=100, metavar="N", help="at most (default: %(default)s)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("tfrec-demo"),
        metavar="FOLDER",
        help="for the pictures and the saved model (default: %(default)s)",
    )
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="(default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from tfrec_llm.data.datasets import load
    from tfrec_llm.data.splits import leave_last_out

    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{arguments.objective}.tfrec"
    arguments.checkpoint = folder / f"{arguments.objective}-training.npz"

    log = load("eshop")
    print(f"Clicks of a clothing shop in 2008, a session a user. {log}")
    split = leave_last_out(log)
    print(
        f"Held out of the {len(split.test):,} sessions of three or more clicks: the last click "
        "for the test, the one before for validation.\n"
    )
    make = recommender_class()
    from tfrec_llm.data.saved_folder import check_target

    check_target(model)
    recommender = make(
        arguments.objective,
        emb_dim=64,
        num_layers=2,
        num_heads=2,
        max_length=50,
        seed=arguments.seed,
        **_SETTINGS[arguments.objective],
    )
    if arguments.checkpoint.exists():
        print(f"Going on from the checkpoint {arguments.checkpoint}.")
    # People look at the same thing twice, so nothing leaves the ranking.
    recommender.fit(
        split.train,
        validation=split.valid,
        epochs=arguments.epochs,
        patience=10,
        filter_seen=False,
        checkpoint=arguments.checkpoint,
        verbose=progress(),
    )
    recommender.save(model)
    seconds = sum(epoch["seconds"] for epoch in recommender.curve)
    print(f"\nTrained for {seconds:,.0f} s, {len(recommender.curve)} epochs.\n")

    comparison = recommender.compare(split.test, filter_seen=False, metrics=("hr", "ndcg", "mrr"))
    print(comparison)
    ahead = comparison.difference(list(comparison)[-1], "Markov chain", "ndcg@10")
    print(f"NDCG@10 ahead of the Markov chain by {ahead}, the bounds of 95 %.\n")
    print(_in_words(recommender, split.test))
    _draw(recommender.plot_curve(), folder / "learning_curve.png")
    _draw(comparison.plot(), folder / "comparison.png")
    print(f"Written to {folder}: learning_curve.png, comparison.png, and the model {model.name}.")
    print(f"Try: tfrec-llm recommend {model} --history A13,B4 --no-filter-seen")


def _in_words(recommender: Any, test: "BehaviorLog", *, shown: int = 3, k: int = 5) -> str:
    """Says of some sessions what was clicked, what is recommended, what was clicked next."""
    import numpy as np

    histories = recommender.sequences(test.history)
    # Those of three and more clicks have one more in the test.
    middling = np.flatnonzero((histories.lengths >= 3) & (histories.lengths <= 6))
    rows = np.sort(np.random.default_rng(0).choice(middling, shown, replace=False))
    users = histories.user_ids.take(rows).to_pylist()
    clicked = dict(zip(test.user.to_pylist(), test.item.to_pylist(), strict=True))
    found = recommender.recommend(users, k=k, filter_seen=False)
    lines: list[str] = []
    for row, user in zip(rows, users, strict=True):
        items = recommender.vocabulary.decode(histories[int(row)]).tolist()
        best = found.loc[found["user"] == user, "item"].to_list()
        lines += [f"Session {user} looked at", *_described(recommender, items), "gets recommended"]
        for item, line in zip(best, _described(recommender, best), strict=True):
            lines.append(f"{line}   <- clicked next" if item == clicked[user] else line)
        if clicked[user] not in best:
            lines += ["clicked next", *_described(recommender, [clicked[user]])]
        lines.append("")
    return "\n".join(lines)


def _described(recommender: Any, items: list[str]) -> list[str]:
    words = recommender.catalogue.describe(items, columns=_SHOWN)
    return [f"  {item:<4} {word}" for item, word in zip(items, words, strict=True)]


def _draw(figure: "Figure", path: Path) -> None:
    from tfrec_llm.data.atomic import replace_file

    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
