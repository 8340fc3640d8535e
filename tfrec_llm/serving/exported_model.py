"""An exported model, loaded without Keras."""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tfrec_llm.data.feature_table import Catalogue
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import SavedModelError
from tfrec_llm.serving.cold_start import ColdStart, Ranked
from tfrec_llm.serving.item_facts import ItemFacts
from tfrec_llm.serving.item_index import ItemIndex
from tfrec_llm.serving.profile_counts import ProfileCounts
from tfrec_llm.serving.snapshot import TrainingSnapshot
from tfrec_llm.serving.version_folder import DESCRIPTION, EXTRA, FORMAT, INDEX, SNAPSHOT

# An integer that no vocabulary is expected to hold.
_NO_ID = 2**63 - 1


class ExportedModel:
    """What `Recommender.export` wrote, ready to be asked.

    Args:
        path: Folder of a version.

    Attributes:
        version: Its number.
        description: What the export says of itself.
        vocabulary: The items.
        catalogue: What is known of them; None where nothing is.
        index: What finds the best items where the export holds one; None where the graph does.
        cold_start: Lists for users of whom nothing is known, without a call of the model.
        item_facts: What the catalogue of the export tells of items.
        signatures: TensorFlow functions by the names that requests call them by.

    Raises:
        SavedModelError: If there is no such folder or it is not whole.

    Example:
        >>> vocabulary = Vocabulary(["a", "b", "c"])
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=vocabulary.size, emb_dim=8)
        >>> model = tfrec_llm.models.NextBehaviorModel(encoder)
        >>> model.build()
        >>> scorer = tfrec_llm.evaluation.ModelScorer(model, vocabulary)
        >>> import tempfile
        >>> folder = tfrec_llm.serving.export_model(scorer, f"{tempfile.mkdtemp()}/shop/1")
        >>> ExportedModel(folder).recommend([["a", "b"]], k=3)[0].items
        ['c']
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        try:
            self.description: dict[str, Any] = json.loads((self.path / DESCRIPTION).read_text())
        except FileNotFoundError as error:
            raise SavedModelError(
                f"{self.path} is no exported model: it has no {DESCRIPTION}. Write one with "
                "Recommender.export()."
            ) from error
        except (OSError, ValueError) as error:
            raise SavedModelError(f"{self.path / DESCRIPTION} cannot be read: {error}") from error
        if self.description.get("format") != FORMAT:
            raise SavedModelError(
                f"{self.path} has the format {self.description.get('format')!r}, not {FORMAT!r}."
            )

        import tensorflow as tf

        try:
            self.vocabulary = Vocabulary.load(self.path / EXTRA / "vocabulary.parquet")
            self._module = tf.saved_model.load(str(self.path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise SavedModelError(f"{self.path} cannot be read: {error}") from error
        self.signatures: Mapping[str, Any] = self._module.signatures
        self.version = int(self.path.name) if self.path.name.isdecimal() else 0
        self.padding = self.description["padding"]
        self.behaviors: list[str] | None = self.description["behaviors"]
        self._dtype: Any = object if self.has_string_ids else np.int64
        self.catalogue = self._load_catalogue()
        self.cold_start = self._load_cold_start(self.catalogue)
        self.item_facts = ItemFacts(self.vocabulary, self.catalogue)
        self.index: ItemIndex | None = None
        if (self.path / EXTRA / INDEX).exists():
            from tfrec_llm.serving.approximate_index import ApproximateIndex

            self.index = ApproximateIndex.load(self.path / EXTRA / INDEX)

    @functools.cached_property
    def snapshot(self) -> TrainingSnapshot | None:
        """What training was like; None where the model was exported without histories."""
        path = self.path / EXTRA / SNAPSHOT
        return TrainingSnapshot.load(path) if path.exists() else None

    @property
    def has_string_ids(self) -> bool:
        """Whether item ids are strings, not integers."""
        return pa.types.is_string(self.vocabulary.ids.type)

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        *,
        k: int | Sequence[int] = 10,
        behaviors: Sequence[Sequence[str]] | None = None,
        exclude: Sequence[Sequence[Any]] | None = None,
        filter_seen: bool | Sequence[bool] = True,
    ) -> list[Ranked]:
        """Returns the best items for users given by what they did.

        Args:
            histories: Raw item ids of each user, oldest first. Those that the vocabulary does not
                hold are read as unknown.
            k: Items a user, the same for all or one each.
            behaviors: Kinds of the behaviours, where the model reads them; None for not known.
            exclude: Raw ids not to recommend, of each user.
            filter_seen: Whether to leave out what the history holds, for all or each.
        """
        rows = len(histories)
        if self.index is not None:
            lengths = np.broadcast_to(np.asarray(k), rows)
            filtered = np.broadcast_to(np.asarray(filter_seen), rows)
            removed = [
                [*(history if filters else ()), *(exclude[row] if exclude else ())]
                for row, (history, filters) in enumerate(zip(histories, filtered, strict=True))
            ]
            return self._nearest(self.index, histories, behaviors, lengths, removed)
        inputs = self._read(histories, behaviors) | {
            "exclude": self.padded(exclude or [[]] * rows),
            "k": np.broadcast_to(np.asarray(k, np.int32), rows),
            "filter_seen": np.broadcast_to(np.asarray(filter_seen, bool), rows),
        }
        found = self.call("recommend", inputs)
        sizes = (found["scores"] > np.finfo(np.float32).min).sum(axis=1)
        return [
            Ranked(self._raw(items[:size]), scores[:size].tolist(), source.decode())
            for items, scores, size, source in zip(
                found["items"], found["scores"], sizes, found["source"], strict=True
            )
        ]

    def _nearest(
        self,
        index: ItemIndex,
        histories: Sequence[Sequence[Any]],
        behaviors: Sequence[Sequence[str]] | None,
        lengths: np.ndarray,
        removed: list[list[Any]],
    ) -> list[Ranked]:
        """Returns what the index finds; for empty histories what is popular."""
        if not len(lengths):
            return []
        vectors = self.embed(histories, behaviors=behaviors)
        without = [np.zeros(0, np.int64) if not own else self._places(own) for own in removed]
        found = index.search(vectors, max(1, int(lengths.max())), without=without)
        ranked = []
        for row, length in enumerate(lengths):
            if not len(histories[row]):
                ranked.append(self.cold_start.recommend(int(length), without=removed[row]))
                continue
            items = found.items[row, : int(length)]
            items = items[items >= 0]
            names = self.vocabulary.decode(items + NUM_RESERVED).tolist()
            ranked.append(Ranked(names, found.scores[row, : len(items)].tolist(), "model"))
        return ranked

    def _places(self, items: Sequence[Any]) -> np.ndarray:
        indexes = self.vocabulary.encode(list(items), on_unknown="ignore").astype(np.int64)
        return indexes[indexes >= NUM_RESERVED] - NUM_RESERVED

    def score(
        self,
        histories: Sequence[Sequence[Any]],
        items: Sequence[Sequence[Any]],
        *,
        behaviors: Sequence[Sequence[str]] | None = None,
    ) -> list[list[float | None]]:
        """Returns the scores of items for users; None for items that are not known.

        Args:
            histories: As in `recommend`.
            items: Raw ids of each user.
            behaviors: As in `recommend`.
        """
        inputs = self._read(histories, behaviors) | {"items": self.padded(items)}
        found = self.call("score", inputs)
        width = found["known"].shape[1]
        return [
            [
                score if known else None
                for score, known in zip(row[width - size :], knowns[width - size :], strict=True)
            ]
            for row, knowns, size in zip(
                found["scores"].tolist(), found["known"].tolist(), map(len, items), strict=True
            )
        ]

    def embed(
        self,
        histories: Sequence[Sequence[Any]],
        *,
        behaviors: Sequence[Sequence[str]] | None = None,
    ) -> np.ndarray:
        """Returns users' vectors, float32 `[n, emb_dim]`: zeros for empty histories.

        Their products with `embed_items` are the scores.
        """
        return self.call("embed", self._read(histories, behaviors))["embeddings"]

    def embed_items(self, items: Sequence[Any]) -> np.ndarray:
        """Returns items' vectors, float32 `[m, emb_dim]`: zeros for unknown ones."""
        return self.call("embed_items", {"items": np.array(list(items), self._dtype)})["embeddings"]

    def counts_of(self, items: Sequence[Any]) -> list[float | None]:
        """Returns how often items occurred, without a call of the model; None for unknown ones."""
        if not items:
            return []
        indexes = self.vocabulary.encode(list(items), on_unknown="ignore")
        counts = self.vocabulary.counts
        return [float(counts[index]) if index >= NUM_RESERVED else None for index in indexes]

    def raw_id(self, given: Any) -> Any:
        """Returns an item id in the type of the vocabulary, whatever a client sent it as.

        What cannot be one of its ids becomes one that it does not hold, to be read as unknown.
        """
        if self.has_string_ids:
            return str(given) if given != self.padding else "\x00unknown"
        try:
            number = int(given)
        except ValueError:
            return _NO_ID
        return number if -_NO_ID <= number < _NO_ID and number != self.padding else _NO_ID

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Calls a signature with arrays by name, and returns its outputs by name."""
        import tensorflow as tf

        tensors = {name: tf.constant(values) for name, values in inputs.items()}
        return {
            name: tensor.numpy() for name, tensor in self.signatures[signature](**tensors).items()
        }

    def padded(self, lists: Sequence[Sequence[Any]]) -> np.ndarray:
        """Returns lists of raw ids as one array, padded on the left."""
        return _padded(lists, self.padding, self._dtype)

    def _load_catalogue(self) -> Catalogue | None:
        path = self.path / EXTRA / "catalogue.parquet"
        try:
            return Catalogue.load(path) if path.exists() else None
        except (OSError, ValueError) as error:
            raise SavedModelError(f"{self.path} cannot be read: {error}") from error

    def _load_cold_start(self, catalogue: Catalogue | None) -> ColdStart:
        extra = self.path / EXTRA
        allowed, profiles = extra / "allowed.npy", extra / "profiles.parquet"
        try:
            return ColdStart(
                self.vocabulary,
                allowed=np.load(allowed) if allowed.exists() else None,
                profiles=ProfileCounts.load(profiles) if profiles.exists() else None,
                catalogue=catalogue,
            )
        except (OSError, ValueError) as error:
            raise SavedModelError(f"{self.path} cannot be read: {error}") from error

    def _read(
        self, histories: Sequence[Sequence[Any]], behaviors: Sequence[Sequence[str]] | None
    ) -> dict[str, np.ndarray]:
        read = {"history": self.padded(histories)}
        if self.behaviors is not None:
            kinds = behaviors or [[""] * len(history) for history in histories]
            read["behaviors"] = _padded(kinds, "", object)
        return read

    def _raw(self, items: np.ndarray) -> list[Any]:
        if not self.has_string_ids:
            return items.tolist()
        return [item.decode() for item in items]


def _padded(lists: Sequence[Sequence[Any]], padding: Any, dtype: Any) -> np.ndarray:
    # Few widths, so that few shapes occur.
    longest = max(map(len, lists), default=0)
    width = 0 if not longest else max(8, 1 << (longest - 1).bit_length())
    padded = np.full((len(lists), width), padding, dtype)
    for row, one in enumerate(lists):
        if len(one):
            padded[row, width - len(one) :] = one
    return padded
