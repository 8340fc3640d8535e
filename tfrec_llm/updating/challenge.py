"""A recommender that goes on learning, against the one that is served."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import NotFittedError
from tfrec_llm.evaluation.comparison import Comparison, compare
from tfrec_llm.evaluation.difference import Difference
from tfrec_llm.updating.new_items import place_new_items
from tfrec_llm.updating.window import UpdateWindow, known_log

if TYPE_CHECKING:
    from tfrec_llm.recommender import Recommender

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True, eq=False)
class Update:
    """What came of an update.

    Attributes:
        accepted: Whether the challenger may take the champion's place.
        reason: Why, or why not.
        published: Folder of the version that was written; None where none was.
        recommender: The challenger if it was accepted, which knows all behaviours by now, the
            held-out ones, too; else the champion as it was.
        comparison: Both on the newest behaviours.
        lead: How far the challenger is ahead, with a paired bootstrap interval.
        new_items: Items that joined the vocabulary.
        learned: Behaviours that the challenger read in an epoch of its training.
        trained_until: Moment before which behaviours were learned from, in the unit of
            `BehaviorLog.times()`: the `since` of the next update.
        seconds: That training took.
    """

    accepted: bool
    reason: str
    published: Path | None
    recommender: "Recommender"
    comparison: Comparison
    lead: Difference
    new_items: int
    learned: int
    trained_until: int
    seconds: float

    def __str__(self) -> str:
        state = "accepted" if self.accepted else "refused"
        lines = [str(self.comparison), f"{state}: {self.reason}"]
        if self.published is not None:
            lines.append(f"published as {self.published}")
        return "\n".join(lines)


def update(
    champion: "Recommender",
    log: BehaviorLog,
    *,
    since: int | None = None,
    hold_out: float = 0.2,
    replay: float = 0.5,
    epochs: int = 3,
    learning_rate: float | None = None,
    metric: str = "ndcg@10",
    tolerance: float = 0.02,
    confidence: float = 0.95,
    filter_seen: bool = True,
    export_to: str | os.PathLike[str] | None = None,
    export_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    verbose: Any = 0,
) -> Update:
    """Teaches a copy of a recommender what is new, and publishes it if it is no worse.

    New items join the vocabulary, with the mean vector of what stands beside them in histories;
    weights and the optimizer's moments of the old ones go on. The copy learns from all that the
    users of the new window did, and from other users' old behaviours, so that it does not forget.
    The newest behaviours are held out, and both are compared on what each user did first among
    them.

    Args:
        champion: The recommender that is served, with its histories; it is not changed.
        log: What there is by now, or only what is new: rows that are not newer than the
            champion's histories are passed over. Its catalogue, too, is taken up.
        since: Moment after which behaviours are learned from, in the unit of `log.times()`: the
            `trained_until` of the update before. None for the newest that the champion knows.
        hold_out: Share of the window's behaviours that both are judged by.
        replay: Users beside those of the window that are learned from, as a share of these.
        epochs: Of training.
        learning_rate: Of training; None for the champion's.
        metric: What they are judged by: hr, ndcg or mrr, `@` a length.
        tolerance: Share of the champion's metric by which the challenger may be behind: it is
            accepted if the whole interval of its lead lies above that. 0 asks for a lead that is
            more than chance.
        confidence: Of the interval.
        filter_seen: Whether what a history holds leaves the ranking.
        export_to: Folder of the served model, in which an accepted challenger is written as the
            next version; None writes nothing.
        export_options: Of `Recommender.export`, such as `{"k": 20}`.
        seed: Of training, replay and bootstrap.
        verbose: As in `keras.Model.fit`.

    Returns:
        What came of it.

    Raises:
        NotFittedError: If the champion is not fitted.
        EmptyLogError: If there is nothing new to learn from.
        DataError: If the champion's histories do not tell what is new.
        SavedModelError: If the version cannot be written.
        ValueError: If an option does not fit.

    Example:
        >>> year = tfrec_llm.data.ShopSimulator(300, 30, seed=0).simulate()
        >>> old = year.take(year.times() < np.median(year.times()))
        >>> champion = tfrec_llm.Recommender(emb_dim=8, num_layers=1).fit(old, epochs=1, verbose=0)
        >>> found = update(champion, year, epochs=1)
        >>> found.accepted == (found.lead.low >= -0.02 * found.comparison["champion"]["ndcg@10"])
        True
    """
    if champion.model is None:
        raise NotFittedError("There is no champion: fit or load a recommender first.")
    if not 0 < hold_out < 1 or replay < 0 or tolerance < 0 or epochs < 1:
        raise ValueError(
            "hold_out must lie between 0 and 1, replay and tolerance be 0 or more, and epochs 1 or "
            f"more; got {hold_out}, {replay}, {tolerance} and {epochs}."
        )
    known = known_log(champion.histories, champion.vocabulary, log)
    window = UpdateWindow.of(known, log, since=since, hold_out=hold_out, replay=replay, seed=seed)
    challenger = champion.copy()
    _take_up(challenger, window.train)
    start = time.perf_counter()
    _train(challenger, window.train, epochs, learning_rate, seed, verbose)
    seconds = time.perf_counter() - start
    fresh = window.everything.take(window.everything.times() >= window.first)
    challenger.vocabulary = _counted(challenger.vocabulary, champion.vocabulary, window, window.cut)
    name, _, length = metric.partition("@")
    comparison = compare(
        {CHAMPION: champion, CHALLENGER: challenger},
        window.test,
        k=int(length or 10),
        filter_seen=filter_seen,
        metrics=tuple({"hr": 0, "ndcg": 0, name: 0}),
        seed=seed,
    )
    lead = comparison.difference(CHALLENGER, CHAMPION, metric, confidence=confidence, seed=seed)
    accepted, reason = judge(comparison, lead, metric, tolerance)
    # Scores that are no numbers rank as if they were best.
    if not all(np.isfinite(weights).all() for weights in challenger.model.get_weights()):
        accepted, reason = False, "training diverged: weights are not finite; learn more slowly"
    published = None
    if accepted:
        _take_up(challenger, fresh)
        challenger.vocabulary = _counted(challenger.vocabulary, champion.vocabulary, window, None)
        challenger.histories = challenger.sequences(window.everything)
        if export_to is not None:
            options = {"filter_seen": filter_seen, **(export_options or {})}
            published = challenger.export(export_to, snapshot_since=window.first, **options)
    return Update(
        accepted=accepted,
        reason=reason,
        published=published,
        recommender=challenger if accepted else champion,
        comparison=comparison,
        lead=lead,
        new_items=len(challenger.vocabulary) - len(champion.vocabulary),
        learned=_read_behaviors(challenger, window.train),
        trained_until=window.cut - 1,
        seconds=seconds,
    )


def _take_up(recommender: "Recommender", log: BehaviorLog) -> None:
    """Extends a recommender by the items of a log, and places them."""
    before = recommender.vocabulary.size
    recommender.extend(log.item, catalogue=log.catalogue)
    place_new_items(recommender, recommender.sequences(log), before)


def _read_behaviors(recommender: "Recommender", log: BehaviorLog) -> int:
    """Returns how many behaviours an epoch reads: of every user the newest."""
    lengths = np.bincount(log.user_codes()[0])
    return int(np.minimum(lengths, recommender.encoder_options["max_length"]).sum())


def _train(
    recommender: "Recommender",
    log: BehaviorLog,
    epochs: int,
    learning_rate: float | None,
    seed: int,
    verbose: Any,
) -> None:
    before = recommender.learning_rate, recommender.seed
    recommender.learning_rate = before[0] if learning_rate is None else learning_rate
    # Another order of batches, and other dropout, than in the training before.
    recommender.seed = seed
    try:
        recommender.fit(log, epochs=epochs, warm_start=True, verbose=verbose)
    finally:
        recommender.learning_rate, recommender.seed = before


def _counted(
    vocabulary: Vocabulary, before: Vocabulary, window: UpdateWindow, until: int | None
) -> Vocabulary:
    """Returns a vocabulary whose counts are those of before and of what is new until a moment."""
    times = window.everything.times()
    new = times > window.known_until
    if until is not None:
        new &= times < until
    items = vocabulary.encode(window.everything.take(new).item, on_unknown="unknown")
    counts = np.bincount(items, minlength=vocabulary.size)
    counts[: before.size] += before.counts
    return Vocabulary(vocabulary.ids, counts=counts)


def judge(
    comparison: Comparison, lead: Difference, metric: str, tolerance: float
) -> tuple[bool, str]:
    """Returns whether a challenger may take the champion's place, and why; see `update`."""
    champion, challenger = comparison[CHAMPION][metric], comparison[CHALLENGER][metric]
    tolerated = -tolerance * champion
    said = (
        f"the challenger reaches {metric} {challenger:.4f}, the champion {champion:.4f}: a lead of "
        f"{lead}"
    )
    if lead.low >= tolerated:
        return True, f"{said}, none of it below the {tolerated:.4f} that are tolerated"
    if lead.high < tolerated:
        return False, f"{said}, worse than the {tolerated:.4f} that are tolerated"
    users = comparison[CHAMPION].evaluated.users
    return False, (
        f"{said}, which may lie below the {tolerated:.4f} that are tolerated; {users} users tell "
        "no more. Wait for more behaviours, or tolerate more"
    )
