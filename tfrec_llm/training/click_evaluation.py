"""What evaluating a click model gives."""

from typing import Self


class ClickEvaluation(float):
    """The mean loss of a click model, with what else was measured beside it.

    It is the loss wherever a number is expected.

    Attributes:
        auc: Chance that a click is ranked above a pair that was no click; NaN
            where one of the two is missing.
        accuracy: Share of pairs whose probability lies on the label's side of
            0.5.

    Example:
        >>> evaluation = ClickEvaluation(0.25, auc=0.9, accuracy=0.8)
        >>> evaluation < 0.3, evaluation.auc
        (True, 0.9)
    """

    auc: float
    accuracy: float

    def __new__(cls, loss: float, *, auc: float, accuracy: float) -> Self:
        evaluation = super().__new__(cls, loss)
        evaluation.auc = auc
        evaluation.accuracy = accuracy
        return evaluation

    def __getnewargs_ex__(self):
        return (float(self),), {"auc": self.auc, "accuracy": self.accuracy}
