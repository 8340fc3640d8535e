"""How far what is seen now lies from what was seen then."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Parts that numbers are sorted into, and items that stand for themselves.
_PARTS, _LARGEST = 10, 1000
# What the drifts of users' vectors are called by, with the number of a direction.
EMBEDDING = "embedding"
# Values below which nothing can be said.
_FEWEST = 100


@dataclass(frozen=True)
class Drift:
    """How far a distribution has moved.

    Attributes:
        name: Of what.
        psi: Population stability index: below 0.1 little has changed, above 0.2 much has.
        by_chance: What the index is on average where nothing has changed, as the values are few.
        jensen_shannon: Jensen-Shannon distance, 0 to 1.
        kolmogorov_smirnov: Largest distance of the cumulative shares, 0 to 1; None of categories.
        labels: Names of the parts, for pictures.
        before: Shares of the parts in training.
        now: Their shares now.
    """

    name: str
    psi: float
    by_chance: float
    jensen_shannon: float
    kolmogorov_smirnov: float | None
    labels: tuple[str, ...]
    before: np.ndarray
    now: np.ndarray

    @property
    def excess(self) -> float:
        """The index without what chance makes: what an alarm goes by."""
        return self.psi - self.by_chance

    @classmethod
    def of_counts(cls, name: str, before: Mapping[Any, int], now: Mapping[Any, int]) -> "Drift":
        """Compares how often categories occurred and occur.

        Categories of which less than five are expected now count together, as "others"; what
        was never seen before counts together, as "new".

        Args:
            name: Of what.
            before: Counts by category; those of what has no name are under None.
            now: Counts by category.

        Example:
            >>> drift = Drift.of_counts("kind", {"top": 500, "hat": 500}, {"top": 90, "hat": 10})
            >>> round(drift.psi, 2), drift.by_chance
            (0.85, 0.011)
        """
        total, present = sum(before.values()), sum(now.values())
        expected = {one: present * count / max(total, 1) for one, count in before.items() if count}
        largest = sorted(expected, key=lambda one: -expected[one])[:_LARGEST]
        kept = [one for one in largest if expected[one] >= 5]
        rest = expected.keys() - set(kept)
        labels = ["unknown" if one is None else str(one) for one in kept]
        then = [before[one] for one in kept]
        current = [now.get(one, 0) for one in kept]
        if rest:
            labels.append("others")
            then.append(sum(before[one] for one in rest))
            current.append(sum(now.get(one, 0) for one in rest))
        new = sum(count for one, count in now.items() if one not in expected)
        if new:
            labels.append("new")
            then.append(0)
            current.append(new)
        return cls._of(name, labels, np.array(then), np.array(current), None)

    @classmethod
    def of_values(cls, name: str, before: np.ndarray, now: np.ndarray) -> "Drift":
        """Compares numbers, sorted into tenths of what they were before.

        Args:
            name: Of what.
            before: Float `[n]`.
            now: Float `[m]`.

        Example:
            >>> before = np.arange(1000.0)
            >>> Drift.of_values("score", before, before + 500).kolmogorov_smirnov
            0.5
        """
        from scipy.stats import ks_2samp

        borders = np.unique(np.quantile(before, np.linspace(0, 1, _PARTS + 1)[1:-1]))
        counts = [
            np.bincount(np.searchsorted(borders, values, side="left"), minlength=len(borders) + 1)
            for values in (before, now)
        ]
        ends = [f"{border:.3g}" for border in borders]
        labels = [f"to {end}" for end in ends] + ([f"above {ends[-1]}"] if ends else ["all"])
        distance = float(ks_2samp(before, now, method="asymp").statistic)
        return cls._of(name, labels, counts[0], counts[1], distance)

    @classmethod
    def _of(
        cls,
        name: str,
        labels: list[str],
        before: np.ndarray,
        now: np.ndarray,
        kolmogorov_smirnov: float | None,
    ) -> "Drift":
        from scipy.spatial.distance import jensenshannon

        chance = (len(labels) - 1) * (1 / max(before.sum(), 1) + 1 / max(now.sum(), 1))
        shares = before / max(before.sum(), 1), now / max(now.sum(), 1)
        distance = float(jensenshannon(*shares, base=2)) if before.sum() and now.sum() else 1.0
        return cls(
            name,
            population_stability(before, now),
            float(chance),
            0.0 if np.isnan(distance) else distance,
            kolmogorov_smirnov,
            tuple(labels),
            *shares,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, as JSON can hold them."""
        return {
            "psi": self.psi,
            "by_chance": self.by_chance,
            "jensen_shannon": self.jensen_shannon,
            "kolmogorov_smirnov": self.kolmogorov_smirnov,
        }


def population_stability(before: np.ndarray, now: np.ndarray) -> float:
    """Returns the population stability index of counts: `sum((q - p) log(q / p))`.

    Half a count is added to each, so that what is missing on one side does not make it infinite.

    Args:
        before: Integer `[parts]`.
        now: Integer `[parts]`.

    Example:
        >>> population_stability(np.array([500, 500]), np.array([500, 500]))
        0.0

    Reference:
        Yurdakul, Naranjo, Statistical properties of the population stability index, 2020
    """
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (before, now))
    return float(np.sum((q - p) * np.log(q / p)))


def enough(values: Any) -> bool:
    """Returns whether there are values enough to speak of drift."""
    return len(values) >= _FEWEST
