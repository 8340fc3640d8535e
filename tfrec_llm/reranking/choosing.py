"""Chooses from lists of candidates, one place after the other for all users at once."""

from collections.abc import Sequence

import numpy as np

from tfrec_llm.reranking.likeness import Likeness
from tfrec_llm.reranking.shortlists import Shortlists

# Numbers that likeness holds of the candidates at a time: 16 MB of float32.
_NUMBERS_AT_ONCE = 1 << 22


def choose(
    candidates: Shortlists,
    k: int,
    *,
    quotas: Sequence[tuple[Likeness, int]] = (),
    diversity: float = 0.0,
    likeness: Likeness | None = None,
) -> Shortlists:
    """Chooses the best `k` candidates of every user that the rules allow.

    Each place goes to the candidate of the most
    `(1 - diversity) * score - diversity * likeness to the most like one chosen`, the scores
    scaled to 0..1 for each user, among those whose quota is not used up. Of equal ones the first
    in the order of the scores is taken, and of equal scores the first candidate.

    Args:
        candidates: In any order.
        k: Places to fill.
        quotas: How many items at most that are like each other, by a likeness of 0 and 1.
        diversity: 0 for the order of the scores.
        likeness: What diversity is measured by.

    Returns:
        Lists of `k` places; of fewer where there are fewer candidates.

    Reference:
        The use of MMR, https://doi.org/10.1145/290941.291025
    """
    order = np.argsort(-candidates.scores, axis=1, kind="stable")
    ranked = candidates.take(order)
    k = min(k, order.shape[1])
    diverse = likeness if diversity > 0.0 else None
    if not quotas and diverse is None:
        return Shortlists(ranked.items[:, :k], ranked.scores[:, :k])
    width = max([1 if diverse is None else diverse.width, *(one.width for one, _ in quotas)])
    at_once = max(1, _NUMBERS_AT_ONCE // max(order.shape[1] * width, 1))
    places = np.full((len(order), k), -1)
    for start in range(0, len(order), at_once):
        part = slice(start, start + at_once)
        lists = Shortlists(ranked.items[part], ranked.scores[part])
        places[part] = _choose(lists, k, quotas, diversity, diverse)
    return ranked.take(places)


def _choose(
    ranked: Shortlists,
    k: int,
    quotas: Sequence[tuple[Likeness, int]],
    diversity: float,
    likeness: Likeness | None,
) -> np.ndarray:
    """Returns the places of what is chosen, int64 `[n, k]`, -1 where nothing is left."""
    rows = np.arange(len(ranked.items))
    free = ranked.items >= 0
    items = np.where(free, ranked.items, 0)
    gains = (1.0 - diversity) * _scaled(ranked.scores, free)
    limited = [(one.among(items), limit, np.zeros(items.shape)) for one, limit in quotas]
    near = None if likeness is None else likeness.among(items)
    nearest: np.ndarray | None = None
    places = np.full((len(items), k), -1)
    for rank in range(k):
        values = gains if nearest is None else gains - diversity * nearest
        best = np.argmax(np.where(free, values, -np.inf), axis=1)
        found = free[rows, best]
        if not found.any():
            break
        places[found, rank] = best[found]
        free[rows, best] = False
        for alike, limit, used in limited:
            used += alike.to(best)
            free &= used < limit
        if near is not None:
            likenesses = near.to(best)
            nearest = likenesses if nearest is None else np.maximum(nearest, likenesses)
    return places


def _scaled(scores: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Returns every row's scores from 0 for the least to 1 for the most, float64; 0 if equal."""
    scores = np.where(filled, scores.astype(np.float64), np.nan)
    with np.errstate(invalid="ignore"):
        least = np.fmin.reduce(scores, axis=1, keepdims=True, initial=np.inf)
        spread = np.fmax.reduce(scores, axis=1, keepdims=True, initial=-np.inf) - least
        scaled = np.divide(scores - least, spread, out=np.zeros(scores.shape), where=spread > 0)
    return np.where(filled, scaled, 0.0)
