"""The area under the ROC curve within every user."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tfrec_llm.data.id_index import as_ids, dictionary_encode
from tfrec_llm.data.labels import as_labels, as_scores, as_weights
from tfrec_llm.errors import DataError, NullValueError
from tfrec_llm.metrics.ranked_labels import RankedLabels


@dataclass(frozen=True)
class GroupedAuc:
    """How well pairs are ranked within each user, and over whom that can be said.

    Attributes:
        value: Mean of the users' areas, weighted by their impressions; NaN where no user has
            both classes.
        users: Users with clicks and other pairs, who count.
        users_left_out: Users with only one of the two, within whom nothing can be ranked.
        share: Share of the impressions, by weight, that belong to users who count.
    """

    value: float
    users: int
    users_left_out: int
    share: float


def grouped_auc(labels: Any, probabilities: Any, users: Any, *, weights: Any = None) -> GroupedAuc:
    """Returns the mean over users of the area under the ROC curve, weighted by impressions.

    The plain AUC also rewards telling users who click much from users who click little, which no
    user notices. This one tells how well each user's own list is ordered.

    Args:
        labels: `[n]` in 0..1; above 0.5 is a click.
        probabilities: Float `[n]`; scores of any range do, too.
        users: `[n]`, the user of every pair, integers or strings.
        weights: Float `[n]`, 0 or more, such as how often each pair was shown; None for equal
            ones. A pair of weight 0 counts nowhere.

    Raises:
        DataError: If there are no labels, lengths differ, or a value is NaN.
        NullValueError: If a pair has no user.

    Example:
        >>> grouped_auc([1, 0, 1, 0, 0], [0.9, 0.8, 0.1, 0.2, 0.3], ["u", "u", "v", "v", "w"])
        GroupedAuc(value=0.5, users=2, users_left_out=1, share=0.8)

    Reference:
        Deep Interest Network, https://arxiv.org/abs/1706.06978
    """
    labels = as_labels(labels)
    scores = as_scores(probabilities, len(labels), name="probabilities")
    weights = as_weights(weights, len(labels))
    kept = weights > 0
    labels, scores, weights = labels[kept], scores[kept], weights[kept]
    codes, num_users = user_numbers(users, kept)
    shown = np.bincount(codes, weights, num_users)
    areas = RankedLabels(labels > 0.5, scores, codes, num_users).areas(weights)
    counts = ~np.isnan(areas)
    counted = shown[counts].sum()
    return GroupedAuc(
        value=float(np.dot(areas[counts], shown[counts]) / counted) if counted else float("nan"),
        users=int(counts.sum()),
        users_left_out=int((~counts).sum()),
        share=float(counted / shown.sum()),
    )


def user_numbers(users: Any, kept: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the int64 number of the user of every pair that is kept, and how many users.

    Args:
        users: `[n]`, integers or strings.
        kept: Boolean `[n]`, which pairs count.

    Raises:
        DataError: If there are not as many users as labels.
        NullValueError: If the user of a pair that is kept is missing.
    """
    ids = as_ids(users)
    if len(ids) != len(kept):
        raise DataError(
            f"users must be one a pair, but there are {len(ids)} for {len(kept)} labels."
        )
    codes, names = dictionary_encode(ids.filter(pa.array(kept)))
    missing = int((codes < 0).sum())
    if missing:
        raise NullValueError(f"{missing} of {len(kept)} pairs have no user. Leave these pairs out.")
    return codes, len(names)
