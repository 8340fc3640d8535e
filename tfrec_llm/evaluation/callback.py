"""Ranking metrics while a model trains."""

from collections.abc import Sequence

import keras

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.evaluation.protocol import RankingTask
from tfrec_llm.evaluation.scorer import Scorer


class RankingEvaluation(keras.callbacks.Callback):
    """Reports ranking metrics of held-out behaviours after every epoch.

    They join the logs as `val_ndcg@10`, ..., so put this callback before
    those that watch them, such as `keras.callbacks.EarlyStopping`.

    Args:
        scorer: What is trained, for instance
            `ModelScorer(model, vocabulary)`.
        log: Held-out behaviours with their history, such as `split.valid`.
        k: Length, or lengths, of the list.
        filter_seen: Whether the items of a user's history leave the ranking.
        metrics: Some of hr, ndcg, mrr, recall, precision, map.
        every: Epochs from one evaluation to the next.

    Example:
        >>> split = tfrec_llm.data.leave_last_out(tfrec_llm.data.ShopSimulator(50, 20).simulate())
        >>> vocabulary = tfrec_llm.data.Vocabulary.fit(split.train.item)
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocabulary.size, 8, 1, 2)
        >>> model = tfrec_llm.models.NextBehaviorModel(encoder)
        >>> model.compile("adam")
        >>> scorer = tfrec_llm.evaluation.ModelScorer(model, vocabulary)
        >>> history = model.fit(
        ...     tfrec_llm.data.next_batches(split.train, vocabulary=vocabulary),
        ...     callbacks=[RankingEvaluation(scorer, split.valid)],
        ...     verbose=0,
        ... )
        >>> sorted(history.history)
        ['loss', 'val_hr@10', 'val_ndcg@10']
    """

    def __init__(
        self,
        scorer: Scorer,
        log: BehaviorLog,
        *,
        k: int | Sequence[int] = 10,
        filter_seen: bool = True,
        metrics: Sequence[str] = ("hr", "ndcg"),
        every: int = 1,
    ):
        super().__init__()
        self.scorer = scorer
        self.k = k
        self.metrics = tuple(metrics)
        self.every = every
        histories = scorer.histories if log.history is None else scorer.sequences(log.history)
        self.task = RankingTask.from_log(
            log, scorer.vocabulary, histories=histories, filter_seen=filter_seen
        )

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        report = self.task.evaluate(self.scorer, k=self.k, metrics=self.metrics, confidence=None)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in report.items()})
