"""How TensorFlow turns raw values of a feature into what `FeatureEncoding` makes of them."""

from typing import Any

import tensorflow as tf

from tfrec_llm.data.feature_codes import FIRST_VALUE, MISSING, UNSEEN, Number, code_from_config
from tfrec_llm.serving.graph import lookup_table

_SECONDS_A_DAY = 86_400.0


def context_code(feature: dict[str, Any]) -> "ContextCode":
    """Returns the code of a feature.

    Args:
        feature: Its entry in the configuration of a `FeatureEncoding`.

    Raises:
        ValueError: If it is a text, which TensorFlow cannot cut into the same words.
    """
    name, kind = feature["name"], feature["kind"]
    if kind == "text":
        raise ValueError(
            f"The context feature {name!r} is a text, which cannot be read inside a SavedModel. "
            "Leave it out of the model, or give the encoded batches: RankingModel.export()."
        )
    code = code_from_config(kind, feature["code"])
    return {"categorical": OneOfValues, "multi": SeveralValues, "vector": Vectors}.get(
        kind, Numbers
    )(code)


class ContextCode:
    """Values `[n, m, ...]` in, what a `FeatureEmbedding` reads out.

    Attributes:
        dtype: Of the values.
        shape: Of a value; None where any length will do.
        table: What looks values up, to be saved with the graph; None where nothing does.
    """

    dtype: Any = tf.float64
    shape: tuple[int | None, ...] = ()
    table: Any = None

    def __call__(self, values):
        raise NotImplementedError


class OneOfValues(ContextCode):
    """A category: a string, the empty one where it is missing."""

    dtype = tf.string

    def __init__(self, code: Any):
        known = dict(zip(code.values, range(FIRST_VALUE, code.size), strict=True))
        known.setdefault("", MISSING)
        self.table = lookup_table(known.keys(), known.values(), tf.string, default=UNSEEN)

    def __call__(self, values):
        return self.table.lookup(values)


class SeveralValues(OneOfValues):
    """Several values: strings, filled up with the empty one."""

    shape = (None,)

    def __init__(self, code: Any):
        super().__init__(code)
        self._width = code.width

    def __call__(self, values):
        values = values[..., : self._width]
        missing = self._width - tf.shape(values)[-1]
        return tf.pad(self.table.lookup(values), [[0, 0], [0, 0], [0, missing]])


class Numbers(ContextCode):
    """A number, or a date in seconds since 1970; NaN where it is missing."""

    def __init__(self, code: Number):
        self._code = code

    def __call__(self, values):
        code = self._code
        values = values / _SECONDS_A_DAY if code.date else values
        missing = tf.math.is_nan(values)
        standard = tf.zeros_like(values)
        if code.spread:
            bent = tf.math.asinh((values - code.median) / code.spread)
            standard = tf.clip_by_value((bent - code.mean) / code.deviation, -5.0, 5.0)
        standard = tf.where(missing, tf.zeros_like(values), standard)
        return tf.cast(tf.stack([standard, tf.cast(missing, tf.float64)], axis=-1), tf.float32)


class Vectors(ContextCode):
    """A vector; NaN where it is missing."""

    def __init__(self, code: Any):
        self._code = code
        self.shape = (code.width,)

    def __call__(self, values):
        mean = tf.constant(self._code.mean, tf.float64)
        scale = self._code.scale
        centred = (values - mean) / (scale or 1.0)
        missing = tf.reduce_any(tf.math.is_nan(values), axis=-1, keepdims=True)
        if not scale:
            missing = tf.ones_like(missing)
        return tf.cast(tf.where(missing, tf.zeros_like(centred), centred), tf.float32)
