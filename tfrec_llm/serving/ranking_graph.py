"""The TensorFlow graph of an exported ranking model: raw ids and values in, probabilities out."""

from typing import Any

import tensorflow as tf

from tfrec_llm.data.feature_encoding import FeatureEncoding
from tfrec_llm.data.vocabulary import MASK, NUM_RESERVED, PADDING, UNKNOWN, Vocabulary
from tfrec_llm.serving.context_codes import context_code
from tfrec_llm.serving.graph import lookup_table, newest_behaviors


class RawIds:
    """Ids of a vocabulary as TensorFlow reads them.

    Args:
        vocabulary: Of strings or integers.
        padding: The id that stands for nothing; not in the vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary, padding: Any):
        self.padding = padding
        self.dtype = tf.string if isinstance(padding, str) else tf.int64
        self.table = lookup_table(
            [padding, *vocabulary.ids.to_pylist()],
            [PADDING, *range(NUM_RESERVED, vocabulary.size)],
            self.dtype,
            default=UNKNOWN,
        )


class RankingGraph(tf.Module):
    """A ranking model with its vocabularies and the encoding of its context as TensorFlow ops.

    Args:
        model: A built `RankingModel`.
        items: Ids of the histories.
        candidates: Ids of what is shown.
        users: Ids of the users, where the model has a `user_embedding`; else None.
        context: Encoding of the context's features, where the model reads any; else None.
        kinds: Names of the kinds of behaviour, in the order of their numbers.
        max_length: Newest behaviours that are read.
        masked: Whether the mask stands behind a history, as in batches of `histories="masked"`.
        rank_by: The output by which `recommend` ranks.
    """

    def __init__(
        self,
        model: Any,
        *,
        items: RawIds,
        candidates: RawIds,
        users: RawIds | None,
        context: FeatureEncoding | None,
        kinds: tuple[str, ...],
        max_length: int,
        masked: bool,
        rank_by: str,
    ):
        super().__init__(name="ranking")
        # Past TensorFlow's own bookkeeping: it would save signatures of the model's layers, too.
        object.__setattr__(self, "_model", model)
        self._weights = [weight.value for weight in model.variables]
        self._max_length, self._masked, self._rank_by = max_length, masked, rank_by
        self._items, self._candidates = items.table, candidates.table
        self._padding = tf.constant(candidates.padding, candidates.dtype)
        self._users = None if users is None else users.table
        self._kinds = None
        if model.encoder.num_behaviors:
            self._kinds = lookup_table(kinds, range(1, len(kinds) + 1), tf.string, default=0)
        features = [] if context is None else context.get_config()["features"]
        codes = {feature["name"]: context_code(feature) for feature in features}
        object.__setattr__(self, "_codes", codes)
        self._tables = [code.table for code in codes.values() if code.table is not None]
        specs = [tf.TensorSpec([None, None], items.dtype, name="history")]
        if self._kinds is not None:
            specs.append(tf.TensorSpec([None, None], tf.string, name="behaviors"))
        specs.append(tf.TensorSpec([None, None], candidates.dtype, name="candidates"))
        if users is not None:
            specs.append(tf.TensorSpec([None], users.dtype, name="user"))
        for name, code in codes.items():
            shape = [None, None, *code.shape]
            specs.append(tf.TensorSpec(shape, code.dtype, name=f"context_{name}"))
        self._names = [spec.name for spec in specs]
        self.score = tf.function(self._score, input_signature=specs)
        k = tf.TensorSpec([None], tf.int32, name="k")
        self.recommend = tf.function(self._recommend, input_signature=[*specs, k])
        read = [spec for spec in specs if spec.name in ("history", "behaviors")]
        self.embed = tf.function(self._embed, input_signature=read)

    @property
    def signatures(self) -> dict[str, Any]:
        """The functions to save, by the names that requests call them by."""
        return {
            "serving_default": self.score,
            "score": self.score,
            "recommend": self.recommend,
            "embed": self.embed,
        }

    def _recommend(self, *inputs):
        *asked, k = inputs
        scored = self._score(*asked)
        candidates = dict(zip(self._names, asked, strict=True))["candidates"]
        # Padding stands behind all.
        rank = tf.where(candidates == self._padding, -1.0, scored[self._rank_by])
        width = tf.clip_by_value(tf.reduce_max(tf.maximum(k, 0)), 0, tf.shape(rank)[1])
        best, places = tf.math.top_k(rank, width)
        listed = (best >= 0.0) & (tf.range(width)[None] < k[:, None])
        found = {name: tf.gather(values, places, batch_dims=1) for name, values in scored.items()}
        known = found.pop("known") & listed
        items = tf.where(listed, tf.gather(candidates, places, batch_dims=1), self._padding)
        found = {name: tf.where(listed, values, 0.0) for name, values in found.items()}
        return {"items": items, **found, "known": known}

    def _embed(self, history, behaviors=None):
        batch, read = self._read(history, behaviors)
        hidden = self._model.encoder(batch, training=False)
        vectors = tf.cast(hidden[:, -1], tf.float32)
        return {"embeddings": tf.where(read > 0, vectors, 0.0)}

    def _read(self, history, behaviors):
        """Returns the batch of histories, and how many behaviours of each are read, `[n, 1]`."""
        kinds = None if self._kinds is None else self._kinds.lookup(behaviors)
        batch = newest_behaviors(self._items.lookup(history), kinds, self._max_length)
        read = tf.reduce_sum(batch["segments"], axis=1, keepdims=True)
        if self._masked:
            batch["positions"] += batch["segments"]
            last = {"items": MASK, "segments": 1, "positions": 0, "behaviors": 0}
            batch = {
                name: tf.pad(values, [[0, 0], [0, 1]], constant_values=last[name])
                for name, values in batch.items()
            }
        return batch, read

    def _score(self, *inputs):
        given = dict(zip(self._names, inputs, strict=True))
        candidates = self._candidates.lookup(given["candidates"])
        shape = tf.shape(candidates)
        batch, read = self._read(given["history"], given.get("behaviors"))
        batch["target_positions"] = tf.fill(shape, tf.shape(batch["items"])[1] - 1)
        batch["history_lengths"] = tf.broadcast_to(read, shape)
        batch["candidates"] = candidates
        if self._users is not None:
            profiles = self._users.lookup(given["user"])[:, None]
            batch["profiles"] = tf.broadcast_to(profiles, shape)
        for name, code in self._codes.items():
            batch[f"context_{name}"] = code(given[f"context_{name}"])
        found = self._model(batch, training=False)
        found = found if isinstance(found, dict) else {"probabilities": found}
        shown = candidates != PADDING
        return {task: tf.where(shown, values[..., 0], 0.0) for task, values in found.items()} | {
            "known": candidates >= NUM_RESERVED
        }
