"""Worker: trains and recommends with RePlay, as one job says.

python run_replay.py job.json
"""

import math
import warnings
from pathlib import Path

import lightning
import pandas as pd
import torch
from measuring import Steps, read_job, users_a_second, write_json
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.agg import SumAggregator
from replay.nn.embedding import SequenceEmbedding
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import PandasTopItemsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.loss import CE, CESampled
from replay.nn.mask import DefaultAttentionMask
from replay.nn.sequential import PositionAwareAggregator, SasRec, SasRecBody, SasRecTransformerLayer
from replay.nn.sequential.length_bucket import LengthBucketedQueryEncoder
from replay.nn.transform import (
    AdaptiveTrimTransform,
    TargetAwareAdaptiveTrimTransform,
    UniformNegativeSamplingTransform,
)
from replay.nn.transform.template import make_default_sasrec_transforms


def main() -> None:
    warnings.simplefilter("ignore")
    job = read_job()
    torch.set_num_threads(job["threads"])
    lightning.seed_everything(job["seed"])
    train = pd.read_parquet(job["train"])
    write_json(job["result"], speed(job, train))


def speed(job: dict, train: pd.DataFrame) -> dict:
    """Measures training and recommending."""
    sizes = job["sizes"]
    num_items = int(train["item"].max()) + 1
    histories = train.groupby("user")["item"].agg(list).rename("item_id").reset_index()
    histories = histories.rename(columns={"user": "user_id"})
    histories["seen_ids"] = histories["item_id"]
    path = str(Path(job["result"]).with_suffix(".parquet"))
    histories.to_parquet(path)
    schema = TensorSchema(
        TensorFeatureInfo(
            "item_id",
            is_seq=True,
            cardinality=num_items,
            padding_value=num_items,
            embedding_dim=sizes["emb_dim"],
            feature_type=FeatureType.CATEGORICAL,
            feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        )
    )
    longest = int(histories["item_id"].map(len).max())
    batches = math.ceil(len(histories) / job["batch_size"])
    steps = Steps(batches, epochs=job["epochs"], warmup=job["warmup"])
    data = make_data(job, schema, path, longest)
    module = LightningModule(
        make_model(job, schema), optimizer_factory=OptimizerFactory("adam", job["learning_rate"])
    )
    trainer = make_trainer(job, StepClock(steps), max_epochs=job["epochs"])
    trainer.fit(module, data)
    result = steps.result()

    def recommend() -> None:
        best = PandasTopItemsCallback(
            top_k=10,
            query_column="user_id",
            item_column="item_id",
            postprocessors=[SeenItemsFilter(num_items, "seen_ids")],
        )
        make_trainer(job, best).predict(module, data, return_predictions=False)
        best.get_result()

    result["users_a_second"] = users_a_second(recommend, len(histories))
    return result


def make_model(job: dict, schema: TensorSchema) -> SasRec:
    """Returns its SasRec of the sizes asked for; histories of like length go together."""
    sizes = job["sizes"]
    emb_dim, heads = sizes["emb_dim"], sizes["num_heads"]
    encoder = SasRecTransformerLayer(
        embedding_dim=emb_dim,
        num_heads=heads,
        num_blocks=sizes["num_layers"],
        dropout=sizes["dropout"],
        activation="gelu",
        hidden_dim=4 * emb_dim,
    )
    if job["buckets"]:
        encoder = LengthBucketedQueryEncoder(encoder, job["buckets"])
    body = SasRecBody(
        embedder=SequenceEmbedding(schema=schema),
        embedding_aggregator=PositionAwareAggregator(
            embedding_aggregator=SumAggregator(embedding_dim=emb_dim),
            max_sequence_length=sizes["max_length"],
            dropout=sizes["dropout"],
        ),
        attn_mask_builder=DefaultAttentionMask("item_id", num_heads=heads),
        encoder=encoder,
        output_normalization=torch.nn.LayerNorm(emb_dim),
    )
    padding = schema["item_id"].padding_value
    losses = {"softmax": CE, "sampled": CESampled}
    return SasRec(body=body, loss=losses[job["loss"]](ignore_index=padding))


def make_data(job: dict, schema: TensorSchema, path: str, longest: int) -> ParquetModule:
    padding, length = schema["item_id"].padding_value, job["sizes"]["max_length"]
    transforms = make_default_sasrec_transforms(schema)
    # Behind the two steps that make targets and masks: places that no history of the batch fills
    # are cut off.
    trim = TargetAwareAdaptiveTrimTransform(["item_id", "positive_labels"])
    transforms["train"].insert(2, trim)
    transforms["predict"].insert(1, AdaptiveTrimTransform("item_id"))
    if job["loss"] == "sampled":
        transforms["train"].append(
            UniformNegativeSamplingTransform(schema["item_id"].cardinality, job["negatives"])
        )
    column = {"shape": length, "padding": padding}
    return ParquetModule(
        batch_size=job["batch_size"],
        metadata={
            "train": {"item_id": {**column, "shape": length + 1}},
            "predict": {
                "user_id": {},
                "item_id": column,
                "seen_ids": {"shape": longest, "padding": padding},
            },
        },
        transforms=transforms,
        config={
            # A partition that is a multiple of the batch, as it asks for.
            "train": {"generator": torch.default_generator, "partition_size": 128 * 8192},
            "predict": {"partition_size": 128 * 8192},
        },
        train_path=path,
        predict_path=path,
    )


def make_trainer(job: dict, callback: lightning.Callback, **options) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        precision=job["precision"],
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        limit_val_batches=0,
        **options,
    )


class StepClock(lightning.Callback):
    """Hands the steps of the trainer to a clock."""

    def __init__(self, steps: Steps):
        self.steps = steps

    def on_train_start(self, trainer, pl_module):
        self.steps.begin()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.end_step(float(outputs["loss"]))


if __name__ == "__main__":
    main()
