"""The probabilities of candidates, by a model of clicks or conversions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pyarrow as pa

from tfrec_llm.data.feature_encoding import FeatureEncoding
from tfrec_llm.data.impression_batches import RankingBatches
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, UNKNOWN, Vocabulary
from tfrec_llm.errors import DataError
from tfrec_llm.models.ranking_model import RankingModel


@dataclass(frozen=True)
class CandidateModel:
    """Asks a model how likely users take their candidates, after all that they did.

    Attributes are the arguments of `Reranker` of the same names, which says what they are.

    Raises:
        TypeError: If the model is no `RankingModel`.
        ValueError: If what the model needs is missing or does not fit it.
    """

    model: RankingModel
    task: str | None = None
    candidates: Vocabulary | None = None
    profiles: Vocabulary | None = None
    context: FeatureEncoding | None = None
    moment: Mapping[str, Any] = field(default_factory=dict)
    max_length: int | None = None
    histories: str | None = None
    batch_size: int = 4096

    def __post_init__(self) -> None:
        if not isinstance(self.model, RankingModel):
            raise TypeError(
                "model must be a RankingModel, such as tfrec_llm.models.ClickModel, got "
                f"{type(self.model).__name__}."
            )
        if self.histories not in (None, "own", "masked"):
            raise ValueError(f'histories must be "own" or "masked", got {self.histories!r}.')
        self._check_task()
        self._check_vocabulary("candidates", "candidate_embedding", "contents")
        self._check_vocabulary("profiles", "user_embedding")
        if self.model.user_embedding is not None and self.profiles is None:
            raise ValueError(
                "The model reads profiles: pass profiles=, the vocabulary of users that its "
                "user_embedding was made for."
            )
        self._check_context()

    def for_items(self, vocabulary: Vocabulary) -> "ItemProbabilities":
        """Makes ready for the items of a first stage.

        Raises:
            ValueError: If the model was made for other items, or the moment is not whole.
        """
        return ItemProbabilities(self, vocabulary)

    def _check_task(self) -> None:
        asked = {"candidates": keras.KerasTensor((None, None), dtype="int32")}
        spec = self.model.compute_output_spec(asked)
        if isinstance(spec, dict):
            if self.task not in spec:
                raise ValueError(
                    f"The model gives the probabilities of {', '.join(map(repr, spec))}: name one "
                    f"of them with task=, got {self.task!r}."
                )
        elif self.task is not None:
            raise ValueError(f"The model gives one probability, so there is no task {self.task!r}.")

    def _check_vocabulary(self, argument: str, *layers: str) -> None:
        vocabulary = getattr(self, argument)
        if vocabulary is None:
            return
        sizes = {name: _size(getattr(self.model, name)) for name in layers}
        if all(getattr(self.model, name) is None for name in layers):
            raise ValueError(f"The model has no {layers[0]}, so leave {argument}= out.")
        for name, size in sizes.items():
            if size not in (None, vocabulary.size):
                raise ValueError(
                    f"The model's {name} has {size} rows and {argument}= has {vocabulary.size} "
                    "indexes: pass the vocabulary that it was made for."
                )

    def _check_context(self) -> None:
        if self.model.context is None:
            if self.context is not None or self.moment:
                raise ValueError("The model reads no context, so leave context= and moment= out.")
            return
        names = ", ".join(repr(spec.name) for spec in self.model.context.specs)
        if self.context is None:
            raise ValueError(
                f"The model reads the context {names}: pass context=, the FeatureEncoding that it "
                "was trained with."
            )
        given = {spec.name: spec for spec in self.context.specs}
        for spec in self.model.context.specs:
            if given.get(spec.name) != spec:
                raise ValueError(
                    f"The model reads {spec}, and context= has {given.get(spec.name)}: pass the "
                    "FeatureEncoding that it was trained with."
                )
        for name in self.moment:
            if name not in given:
                raise ValueError(f"moment names {name!r}; the context holds {names}.")


class ItemProbabilities:
    """A `CandidateModel` that is ready for the items of one first stage."""

    def __init__(self, asked: CandidateModel, vocabulary: Vocabulary):
        self._asked = asked
        encoder = asked.model.encoder
        if encoder.vocab_size != vocabulary.size:
            raise ValueError(
                f"The model's encoder reads {encoder.vocab_size} indexes and the first stage ranks "
                f"{vocabulary.size}: the model must be trained on the vocabulary of the first "
                "stage."
            )
        for name in ("candidate_embedding", "contents"):
            size = _size(getattr(asked.model, name))
            if asked.candidates is None and size not in (None, vocabulary.size):
                raise ValueError(
                    f"The model's {name} has {size} rows and the first stage ranks "
                    f"{vocabulary.size} indexes: pass candidates=, the vocabulary that it was made "
                    "for."
                )
        self._indexes = np.arange(NUM_RESERVED, vocabulary.size)
        if asked.candidates is not None:
            self._indexes = asked.candidates.encode(vocabulary.ids, on_unknown="unknown")
        self._moment = self._encoded_moment()

    def score(
        self, sequences: UserSequences, names: pa.Array | None, items: np.ndarray
    ) -> np.ndarray:
        """Returns float32 `[n, places]`, `-inf` where there is no candidate.

        Args:
            sequences: What the n users did.
            names: Their raw ids; None where they have none.
            items: int `[n, places]`, candidates, counted from the first item; -1 for none.

        Raises:
            DataError: If the model gives NaN.
        """
        scores = np.full(items.shape, -np.inf, np.float32)
        rows, places = np.nonzero(items >= 0)
        if not len(rows):
            return scores
        asked = self._asked
        encoder = asked.model.encoder
        profiles = None
        if asked.profiles is not None:
            of_user = np.full(len(sequences), UNKNOWN, np.int32)
            if names is not None:
                of_user = asked.profiles.encode(names, on_unknown="unknown")
            profiles = of_user[rows]
        found: Any = asked.model.predict(
            RankingBatches(
                self._timeless(sequences),
                users=rows,
                # After all that was done, which is at the time 0.
                times=np.ones(len(rows), np.int64),
                candidates=self._indexes[items[rows, places]],
                profiles=profiles,
                context={
                    name: np.broadcast_to(values, (len(rows), *values.shape[1:]))
                    for name, values in self._moment.items()
                },
                max_length=asked.max_length or encoder.max_length,
                batch_size=asked.batch_size,
                histories=asked.histories or ("own" if encoder.causal else "masked"),
            )
        )
        found = found if asked.task is None else found[asked.task]
        if np.isnan(found).any():
            raise DataError(
                f"The model gives NaN for {np.isnan(found).sum():,} of {len(found):,} candidates: "
                "its training went astray."
            )
        scores[rows, places] = found
        return scores

    def _timeless(self, sequences: UserSequences) -> UserSequences:
        """Returns the sequences with all behaviours at the time 0, and kinds if the model reads
        them."""
        kinds, encoder = sequences.behaviors, self._asked.model.encoder
        if not encoder.num_behaviors:
            kinds = None
        elif kinds is None:
            kinds = np.zeros(len(sequences.items), np.int32)
        elif kinds.max(initial=0) > encoder.num_behaviors:
            raise ValueError(
                f"The histories hold {kinds.max()} kinds of behaviour and the model reads "
                f"{encoder.num_behaviors}: train it on the kinds of the first stage."
            )
        return UserSequences(
            sequences.items,
            sequences.offsets,
            behaviors=kinds,
            times=np.zeros(len(sequences.items), np.int64),
        )

    def _encoded_moment(self) -> dict[str, np.ndarray]:
        """Returns the features of the moment, one row each."""
        asked = self._asked
        if asked.model.context is None:
            return {}
        assert asked.context is not None
        missing = [spec.name for spec in asked.context.specs if spec.name not in asked.moment]
        if missing:
            raise ValueError(
                f"The model reads {', '.join(map(repr, missing))} of the moment: say what it is "
                f"now, with moment={{{missing[0]!r}: ...}} or reranker.at({missing[0]}=...); None "
                "where it is not known."
            )
        arrays = asked.context.encode({name: [value] for name, value in asked.moment.items()})
        return {spec.name: arrays[spec.name] for spec in asked.model.context.specs}


def _size(layer: Any) -> int | None:
    """Returns how many candidates or users a layer knows, where it says so."""
    return getattr(layer, "num_candidates", getattr(layer, "vocab_size", None))
