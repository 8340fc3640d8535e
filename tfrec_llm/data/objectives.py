"""What a model is trained to predict: small transforms from behaviours to batches."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tfrec_llm.data.vocabulary import MASK, NUM_RESERVED, PADDING, UNKNOWN

Batch = dict[str, np.ndarray]


class Objective(Protocol):
    """A transform from a packed batch of whole behaviours to inputs and targets.

    Attributes:
        lookahead: Behaviours at the end of a history that are targets only.
    """

    lookahead: int

    def __call__(self, batch: Batch, rng: np.random.Generator) -> tuple[Batch, np.ndarray]:
        """Returns the model's inputs and the targets `[rows, targets]`.

        Args:
            batch: Integer arrays `[rows, length]`: `items`, `segments`,
                `positions`, `following` (the item after each place in its
                history, `PADDING` where there is none) and, where the log has
                them, `behaviors`.
            rng: Source of what is random.
        """
        ...


@dataclass(frozen=True)
class NextBehavior:
    """Every place predicts the item that follows it.

    Example:
        >>> batch = {"items": np.array([[3, 4]]), "following": np.array([[4, 5]])}
        >>> inputs, targets = NextBehavior()(batch, np.random.default_rng(0))
        >>> inputs["target_positions"].tolist(), targets.tolist()
        ([[0, 1]], [[4, 5]])

    Reference:
        SASRec, https://arxiv.org/abs/1808.09781
    """

    lookahead = 1

    def __call__(self, batch: Batch, rng: np.random.Generator) -> tuple[Batch, np.ndarray]:
        inputs = dict(batch)
        targets = _known(inputs.pop("following"))
        places = np.broadcast_to(np.arange(targets.shape[1], dtype=np.int32), targets.shape)
        inputs["target_positions"] = places
        return inputs, targets


@dataclass(frozen=True)
class MaskedBehavior:
    """Some behaviours are hidden and predicted from the others.

    A share of the histories hides its newest behaviour only, which is what is
    asked when the model recommends. A row has a fixed number of targets; a
    row that drew more keeps the surplus visible.

    Args:
        mask_rate: Share of behaviours hidden.
        newest_rate: Share of histories that hide only their newest behaviour.

    Raises:
        ValueError: If a rate is out of its range.

    Reference:
        BERT4Rec, https://arxiv.org/abs/1904.06690
    """

    mask_rate: float = 0.2
    newest_rate: float = 0.2

    lookahead = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_rate < 1.0:
            raise ValueError(f"mask_rate must lie between 0 and 1, got {self.mask_rate}.")
        if not 0.0 <= self.newest_rate <= 1.0:
            raise ValueError(f"newest_rate must lie in 0..1, got {self.newest_rate}.")

    def __call__(self, batch: Batch, rng: np.random.Generator) -> tuple[Batch, np.ndarray]:
        inputs = dict(batch)
        inputs.pop("following")
        items, segments = inputs["items"], inputs["segments"]
        rows, length = items.shape
        newest = (inputs["positions"] == 0) & (segments > 0)
        # One draw a history, read at each of its places.
        only_newest = rng.random((rows, int(segments.max(initial=0)) + 1)) < self.newest_rate
        only_newest = np.take_along_axis(only_newest, segments, axis=1)
        draws = rng.random(items.shape)
        hidden = np.where(only_newest, newest, draws < self.mask_rate)
        # A history of which nothing was drawn hides its newest behaviour.
        hidden |= newest & ~_any_by_segment(hidden, segments)
        hidden &= items >= NUM_RESERVED
        num_targets = self.targets_in(length)
        # The hidden places first, in random order; what is beyond the number stays visible.
        order = np.argsort(np.where(hidden, draws, 2.0), axis=1, kind="stable")
        places = np.sort(order[:, :num_targets], axis=1)
        chosen = np.take_along_axis(hidden, places, axis=1)
        targets = np.where(chosen, np.take_along_axis(items, places, axis=1), PADDING)
        masked = np.zeros_like(hidden)
        np.put_along_axis(masked, places, chosen, axis=1)
        inputs["items"] = np.where(masked, MASK, items).astype(items.dtype)
        if "behaviors" in inputs:
            inputs["behaviors"] = np.where(masked, 0, inputs["behaviors"])
        inputs["target_positions"] = places.astype(np.int32)
        return inputs, targets.astype(np.int32)

    def targets_in(self, length: int) -> int:
        """Returns the number of targets of a row of `length` places."""
        return min(length, int(np.ceil(1.25 * self.mask_rate * length)) + 4)


def _any_by_segment(marked: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Returns at each place whether any place of its segment is marked."""
    width = int(segments.max(initial=0)) + 1
    flat = segments + width * np.arange(len(segments))[:, None]
    counts = np.bincount(flat[marked], minlength=width * len(segments))
    return counts[flat] > 0


def _known(targets: np.ndarray) -> np.ndarray:
    """Returns targets with unknown items as `PADDING`: they cannot be predicted."""
    return np.where(targets == UNKNOWN, PADDING, targets)


def objective_by_name(name: str, **options: Any) -> Objective:
    """Returns the objective of a name, `"next"` or `"masked"`, made with its options."""
    kinds: dict[str, Any] = {"next": NextBehavior, "masked": MaskedBehavior}
    if name not in kinds:
        raise ValueError(f"objective must be one of {sorted(kinds)}, got {name!r}.")
    return kinds[name](**options)
