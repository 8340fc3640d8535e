"""Cross-entropy over the target and a sample of the catalogue."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfrec_llm.losses.catalog_loss import CatalogLoss
from tfrec_llm.losses.table_rows import table_rows

KINDS = ("softmax", "gbce")


@keras.saving.register_keras_serializable(package="tfrec_llm")
class SampledCrossEntropy(CatalogLoss):
    """Cross-entropy against one set of sampled items that all positions share.

    Its cost does not grow with the catalogue: one matrix product of the
    positions with `num_negatives` rows. Logits are corrected by the logarithm
    of an item's expected count in the sample, so popular items sampled more
    often are not punished for it, and a sampled item that is a position's own
    target does not count as its negative.

    Args:
        num_negatives: Items drawn a step, with replacement.
        frequencies: Optional counts `[items]`, rows of the table that are no
            candidates included; items are drawn by `frequencies ** power`.
            None draws uniformly.
        power: Exponent of the frequencies.
        kind: `"softmax"`, or `"gbce"`: binary cross-entropy whose positive
            term is calibrated for the sampling.
        calibration: The t of gBCE, 0 for plain binary cross-entropy, 1 for
            fully calibrated scores.
        seed: Seed of the draws.

    Call arguments: See `CatalogLoss`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> loss = SampledCrossEntropy(num_negatives=16, seed=0)
        >>> hidden, table = keras.ops.zeros((4, 8)), keras.ops.zeros((100, 8))
        >>> float(loss(keras.ops.arange(4), hidden, table)) <= float(keras.ops.log(17.0))
        True

    Reference:
        On Using Very Large Target Vocabulary, https://arxiv.org/abs/1412.2007;
        gSASRec, https://arxiv.org/abs/2308.07192
    """

    takes_rows = True

    def __init__(
        self,
        num_negatives: int = 256,
        *,
        frequencies: Sequence[float] | np.ndarray | None = None,
        power: float = 0.75,
        kind: str = "softmax",
        calibration: float = 0.75,
        seed: int | None = None,
        name: str = "sampled_cross_entropy",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if num_negatives < 1:
            raise ValueError(f"num_negatives must be positive, got {num_negatives}.")
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
        if not 0.0 <= calibration <= 1.0:
            raise ValueError(f"calibration must lie in 0..1, got {calibration}.")
        self.num_negatives = num_negatives
        self.frequencies = None if frequencies is None else np.asarray(frequencies, np.float64)
        self.power = power
        self.kind = kind
        self.calibration = calibration
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.seed = seed

    def weighted_sum(self, targets, hidden, table, weights, first_item):
        negatives, negative_counts, target_counts = self._draw(
            targets, int(table.shape[0]), first_item
        )
        rows = ops.cast(table_rows(table, negatives), hidden.dtype)
        own = ops.cast(table_rows(table, targets), hidden.dtype)
        negative = ops.cast(ops.matmul(hidden, ops.transpose(rows)), "float32")
        positive = ops.sum(ops.cast(hidden * own, "float32"), axis=-1)
        accidental = negatives[None, :] == targets[:, None]
        if self.kind == "gbce":
            share = min(1.0, self.num_negatives / max(1, table.shape[0] - first_item - 1))
            beta = share * (self.calibration * (1.0 - 1.0 / share) + 1.0 / share)
            rejected = ops.where(accidental, 0.0, ops.softplus(negative))
            losses = beta * ops.softplus(-positive) + ops.sum(rejected, axis=-1)
        else:
            negative = negative - ops.log(negative_counts)[None, :]
            positive = positive - ops.log(target_counts)
            negative = ops.where(accidental, -1e9, negative)
            logits = ops.concatenate([positive[:, None], negative], axis=-1)
            losses = ops.logsumexp(logits, axis=-1) - positive
        return ops.sum(weights * losses)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_negatives": self.num_negatives,
            "frequencies": None if self.frequencies is None else self.frequencies.tolist(),
            "power": self.power,
            "kind": self.kind,
            "calibration": self.calibration,
            "seed": self.seed,
        }

    def _draw(self, targets, num_rows, first_item):
        """Returns sampled rows and the expected counts of them and of the targets."""
        shape = (self.num_negatives,)
        if self.frequencies is None:
            negatives = keras.random.randint(
                shape, first_item, num_rows, dtype="int32", seed=self.seed_generator
            )
            count = self.num_negatives / (num_rows - first_item)
            return negatives, ops.full(shape, count), ops.full((1,), count)
        if len(self.frequencies) != num_rows:
            raise ValueError(
                f"frequencies must have one value for each of the {num_rows} rows of the table, "
                f"got {len(self.frequencies)}."
            )
        shares = np.where(np.arange(num_rows) < first_item, 0.0, self.frequencies**self.power)
        shares = shares / shares.sum()
        counts = ops.convert_to_tensor(
            np.maximum(shares, 1e-12) * self.num_negatives, dtype="float32"
        )
        negatives = _draw_by_shares(shares, self.num_negatives, self.seed_generator)
        return negatives, ops.take(counts, negatives), ops.take(counts, targets)


def _draw_by_shares(shares: np.ndarray, count: int, seed: Any):
    """Draws `count` rows by their shares: first a stretch of rows, then one row of it.

    One cumulated sum over all rows would not do: of a million rows float32
    cannot tell the bounds apart.
    """
    width = int(np.ceil(len(shares) ** 0.5))
    padded = np.zeros(-(-len(shares) // width) * width)
    padded[: len(shares)] = shares
    inside = np.cumsum(padded.reshape(-1, width), axis=1)
    totals = inside[:, -1].copy()
    bounds = ops.convert_to_tensor((np.cumsum(totals) / totals.sum())[:-1], dtype="float32")
    inside = inside / np.maximum(totals, 1e-300)[:, None]
    # The rows before the last of a stretch are those whose bound a point has passed.
    inside = ops.convert_to_tensor(inside[:, :-1], dtype="float32")
    points = keras.random.uniform((2, count), seed=seed)
    stretches = ops.cast(ops.searchsorted(bounds, points[0], side="right"), "int32")
    passed = ops.take(inside, stretches, axis=0) <= points[1][:, None]
    places = ops.sum(ops.cast(passed, "int32"), axis=-1)
    return ops.minimum(stretches * width + places, len(shares) - 1)
