"""What an update learns from, and what it is judged by."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import UNKNOWN, Vocabulary
from tfrec_llm.errors import DataError, EmptyLogError


@dataclass(frozen=True, eq=False)
class UpdateWindow:
    """A log, cut for an update.

    Attributes:
        everything: All that is known by now, old and new.
        train: What the challenger learns from: all that the users of the window did before the
            cut, and as much of other users as is replayed.
        test: What users did first after the cut; its history is all that was before.
        first: The first moment of the window, in the unit of `BehaviorLog.times()`.
        cut: Where the test begins.
        known_until: The newest moment that the recommender knew.
    """

    everything: BehaviorLog
    train: BehaviorLog
    test: BehaviorLog
    first: int
    cut: int
    known_until: int

    @classmethod
    def of(
        cls,
        known: BehaviorLog | None,
        log: BehaviorLog,
        *,
        since: int | None,
        hold_out: float,
        replay: float,
        seed: int,
    ) -> "UpdateWindow":
        """Cuts a log.

        Args:
            known: What the recommender knows already; None for nothing.
            log: What there is by now. Rows that are not newer than what is known are passed
                over.
            since: Moment after which the window begins; None for the newest that is known.
            hold_out: Share of the window's behaviours, the newest, that are the test.
            replay: Users beside those of the window that are learned from, as a share of these.
            seed: Chooses them.

        Raises:
            EmptyLogError: If there is nothing new, or nothing is left of it to learn from.
        """
        log.require_complete()
        everything = log
        newest = int(log.times().min()) - 1 if len(log) else 0
        if known is not None:
            newest = int(known.times().max())
            wanted = [name for name in known.table.column_names if name in log.table.column_names]
            fresh = BehaviorLog(log.table.select(wanted), catalogue=log.catalogue)
            known = BehaviorLog(known.table.select(wanted), catalogue=log.catalogue)
            fresh = fresh.take(log.times() > newest)
            if not len(fresh):
                raise EmptyLogError("The log holds nothing newer than what is known already.")
            everything = known.concat(fresh)
        times = everything.times()
        window = times > (newest if since is None else since)
        ascending = np.sort(times[window])
        if not len(ascending):
            raise EmptyLogError("No behaviour is newer than the moment since which to learn.")
        cut = int(ascending[len(ascending) - max(1, round(len(ascending) * hold_out))])
        learned = window & (times < cut)
        if not learned.any():
            raise EmptyLogError(
                f"Of {len(ascending)} new behaviours none is left to learn from; hold out less."
            )
        before = times < cut
        codes, users = everything.user_codes()
        chosen = np.bincount(codes[learned], minlength=len(users)) > 0
        others = np.flatnonzero(~chosen & (np.bincount(codes[before], minlength=len(users)) > 0))
        count = min(len(others), round(replay * np.count_nonzero(chosen)))
        chosen[np.random.default_rng(seed).choice(others, count, replace=False)] = True
        return cls(
            everything=everything,
            train=everything.take(before & chosen[codes]),
            test=first_of_users(everything, times >= cut, history=everything.take(before)),
            first=int(ascending[0]),
            cut=cut,
            known_until=newest,
        )


def known_log(
    histories: UserSequences, vocabulary: Vocabulary, like: BehaviorLog
) -> BehaviorLog | None:
    """Returns histories as a log again, with the times and columns of another one.

    Args:
        histories: What users did. Items that the vocabulary does not hold are left out.
        vocabulary: Of the items.
        like: A log whose kind of times it gets, and kinds of behaviour if it has them.

    Returns:
        The log; None where there is no history.

    Raises:
        DataError: If the histories do not know users' names or times.
    """
    if not len(histories.items):
        return None
    if histories.user_ids is None or histories.times is None:
        raise DataError("Without users' names and times, nobody knows which behaviours are new.")
    kept = histories.items > UNKNOWN
    rows = np.repeat(np.arange(len(histories)), histories.lengths)[kept]
    kind = like.column("time").type
    times = np.asarray(histories.times)[kept]
    moments = pa.array(times / 1e6 if pa.types.is_floating(kind) else times)
    columns = {
        "user": histories.user_ids.take(pa.array(rows)),
        "item": pa.array(vocabulary.decode(histories.items[kept]), vocabulary.ids.type),
        "time": moments.cast(kind),
    }
    if like.has("behavior"):
        names = np.array([None, *histories.behavior_vocabulary], object)
        kinds = (
            np.zeros(len(rows), np.int64)
            if histories.behaviors is None
            else np.asarray(histories.behaviors)[kept]
        )
        columns["behavior"] = pa.array(names[kinds], pa.string())
    return BehaviorLog(pa.table(columns), catalogue=like.catalogue)


def first_of_users(log: BehaviorLog, kept: np.ndarray, *, history: BehaviorLog) -> BehaviorLog:
    """Returns the first row of every user among those kept."""
    order = log.order()
    order = order[kept[order]]
    codes = log.user_codes()[0][order]
    first = np.ones(len(order), bool)
    first[1:] = codes[1:] != codes[:-1]
    return log.take(np.sort(order[first]), history=history)
