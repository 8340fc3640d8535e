"""A trained model whose items' vectors take few bytes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfrec_llm.data.atomic import replace_folder
from tfrec_llm.data.saved_folder import (
    check_target,
    load_parts,
    read_manifest,
    save_parts,
    write_manifest,
)
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED
from tfrec_llm.errors import NotFittedError, SavedModelError, TfrecError
from tfrec_llm.evaluation.code_scores import CodeScores
from tfrec_llm.evaluation.item_scores import ItemScores
from tfrec_llm.evaluation.model_scorer import ModelScorer, model_item_scores
from tfrec_llm.evaluation.product_scores import ProductScores
from tfrec_llm.layers.compressed_table import CompressedTable
from tfrec_llm.models import MaskedBehaviorModel, NextBehaviorModel
from tfrec_llm.models.replaced_tables import with_tables

if TYPE_CHECKING:
    from tfrec_llm.recommender import Recommender

_MODELS = {kind.__name__: kind for kind in (NextBehaviorModel, MaskedBehaviorModel)}
_FORMAT = "tfrec_llm.compressed_scorer.1"

# With so few users at a time adding up table entries is faster than decoding vectors: twice with
# four users and 8 codes an item, alike with 16.
_FEW_USERS = 8


class CompressedScorer(ModelScorer):
    """Ranks a catalogue by a model with `CompressedTable` layers in place of its item tables.

    Histories are read and items are scored by the small tables alone, so that is what serving
    holds in memory. It is made from a fitted model, which stays as it is, and is trained no more.

    Args:
        model: A model whose tables are compressed, see `of`.
        vocabulary: The items the model was made for.
        histories: What known users did.
        catalogue: What is known of the items.

    Example:
        >>> split = tfrec_llm.data.leave_last_out(tfrec_llm.data.ShopSimulator(80, 30).simulate())
        >>> rec = tfrec_llm.Recommender(emb_dim=16, num_layers=1)
        >>> rec = rec.fit(split.train, epochs=1, verbose=0)
        >>> small = CompressedScorer.of(rec, kind="int8")
        >>> small.bytes_per_item
        20.0
        >>> len(small.recommend(users=rec.histories.user_ids[:2], k=3))
        6

    Reference:
        RecJPQ, https://arxiv.org/abs/2312.06165
    """

    @classmethod
    def of(
        cls,
        scorer: "Recommender | ModelScorer",
        *,
        kind: str = "int8",
        num_codes: int | None = None,
        seed: int = 0,
    ) -> "CompressedScorer":
        """Compresses the item tables of a fitted `Recommender` or a `ModelScorer`.

        Args:
            scorer: What is compressed; it does not change.
            kind: `"float16"`, `"int8"` or `"product"`, see `CompressedTable`.
            num_codes: Bytes an item of `"product"`.
            seed: Of the k-means of `"product"`.

        Raises:
            NotFittedError: If the recommender is not fitted.
            ValueError: As of `CompressedTable`.
        """
        model = scorer.model
        if model is None:
            raise NotFittedError("This Recommender is not fitted: call fit() or load().")

        def compressed(layer: Any) -> CompressedTable:
            return CompressedTable.of_layer(layer, kind=kind, num_codes=num_codes, seed=seed)

        small = with_tables(model, compressed)
        return cls(small, scorer.vocabulary, histories=scorer.histories, catalogue=scorer.catalogue)

    @property
    def table(self) -> CompressedTable:
        """The table that items are scored by."""
        return self.model.output_layer

    @property
    def bytes_per_item(self) -> float:
        """Bytes that one more item takes, in all tables; float32 takes 4 a number and table."""
        tables = {id(table): table for table in (self.model.encoder.item_embedding, self.table)}
        return sum(table.bytes_per_item for table in tables.values())

    def item_scores(self, sequences: UserSequences) -> ItemScores:
        return model_item_scores(self.model, self.vocabulary, sequences, products=self._products)

    def _products(self, vectors: np.ndarray) -> ItemScores:
        count = len(self.vocabulary)
        by_codes = self.table.kind == "product" and self.model.similarity == "dot"
        if by_codes and len(vectors) <= _FEW_USERS:
            codes, centroids = (
                np.asarray(keras.ops.cast(weight, weight.dtype))
                for weight in (self.table.codes, self.table.centroids)
            )
            return CodeScores(vectors, codes[NUM_RESERVED:], centroids)
        return ProductScores(vectors, _Decoded(self.model), count)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves everything that `load` needs into a folder, whole or not at all.

        Args:
            path: The folder; a saved scorer that is there is replaced when the new one is
                complete.

        Raises:
            SavedModelError: If it cannot be written, or `path` holds something else. What was
                there stays.
        """
        path = Path(path)
        check_target(path)
        try:
            with replace_folder(path) as folder:
                save_parts(self, folder)
                self.model.save(folder / "model.keras")
                write_manifest(folder, _FORMAT)
        except OSError as error:
            raise SavedModelError(
                f"The scorer could not be saved to {path}: {error}. What was there before is "
                "unchanged."
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "CompressedScorer":
        """Loads what `save` wrote; scores are equal.

        Args:
            path: The folder.

        Raises:
            SavedModelError: If a file is missing or damaged; it says which.
        """
        path = Path(path)
        files = read_manifest(path, _FORMAT)["files"]
        try:
            model = keras.saving.load_model(
                path / "model.keras", custom_objects=_MODELS, compile=False
            )
            known = load_parts(
                path,
                histories=(path / "histories").exists(),
                catalogue="catalogue.parquet" in files,
            )
            return cls(
                model, known.vocabulary, histories=known.histories, catalogue=known.catalogue
            )
        except (OSError, ValueError, TfrecError) as error:
            raise SavedModelError(f"{path} cannot be read: {error}") from error


class _Decoded:
    """A model's item vectors, decoded where they are asked for; items count from the first."""

    def __init__(self, model: Any):
        self._model = model

    def __getitem__(self, items: slice | np.ndarray) -> np.ndarray:
        if isinstance(items, slice):
            items = np.arange(items.start, items.stop)
        return np.asarray(self._model.vectors_of(items.astype(np.int32) + NUM_RESERVED))
