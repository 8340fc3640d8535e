"""Worker: trains, recommends or learns to its best with RecTools, as one job says.

    python run_rectools.py job.json

`"model"` of the job is `"sasrec"` (SASRecModel), `"esasrec"` (SASRecModel with LiGR blocks) or
`"flat"` (rectools.fast_transformers' FlatSASRecNet, which comes without a training loop).
"""

import math
import time
import warnings

import numpy as np
import pandas as pd
import torch
from measuring import Curve, Steps, ndcg_at_10, read_job, users_a_second, write_json
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, build_sequences
from rectools.models import SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers

LOSSES = {"softmax": "softmax", "sampled": "sampled_softmax"}


def main() -> None:
    warnings.simplefilter("ignore")
    job = read_job()
    torch.set_num_threads(job["threads"])
    seed_everything(job["seed"])
    train = pd.read_parquet(job["train"])
    if job["mode"] == "to_best":
        result = to_best(job, train)
    elif job["model"] == "flat":
        result = flat_speed(job, train)
    else:
        result = speed(job, train)
    write_json(job["result"], result)


def as_dataset(log: pd.DataFrame) -> Dataset:
    names = {"user": Columns.User, "item": Columns.Item, "time": Columns.Datetime}
    return Dataset.construct(log.rename(columns=names).assign(**{Columns.Weight: 1}))


def make_model(job: dict, callback: Callback, **trainer) -> SASRecModel:
    """Returns the model with the trainer that it makes by default, and a callback that watches."""
    sizes = job["sizes"]
    blocks = {"transformer_layers_type": LiGRLayers} if job["model"] == "esasrec" else {}
    model = SASRecModel(
        n_factors=sizes["emb_dim"],
        n_blocks=sizes["num_layers"],
        n_heads=sizes["num_heads"],
        session_max_len=sizes["max_length"],
        dropout_rate=sizes["dropout"],
        loss=LOSSES[job["loss"]],
        n_negatives=job["negatives"],
        lr=job["learning_rate"],
        batch_size=job["batch_size"],
        dataloader_num_workers=job["loader_processes"],
        recommend_torch_device="cpu",
        **blocks,
    )
    model._trainer = Trainer(  # the way its documentation names for a trainer of one's own
        accelerator="cpu",
        precision=job["precision"],
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **trainer,
    )
    return model


def speed(job: dict, train: pd.DataFrame) -> dict:
    """Measures training and recommending."""
    dataset = as_dataset(train)
    users = dataset.user_id_map.external_ids
    batches = math.ceil(len(users) / job["batch_size"])
    steps = Steps(batches, epochs=job["epochs"], warmup=job["warmup"])
    model = make_model(job, StepClock(steps), max_epochs=job["epochs"])
    model.fit(dataset)
    result = steps.result()
    result["users_a_second"] = users_a_second(
        lambda: model.recommend(users, dataset, k=10, filter_viewed=True), len(users)
    )
    return result


class Watching(Callback):
    """A callback that a copy of the trainer, which `fit` makes, does not copy."""

    def __deepcopy__(self, memo):
        return self


class StepClock(Watching):
    """Hands the steps of the trainer to a clock."""

    def __init__(self, steps: Steps):
        self.steps = steps

    def on_train_start(self, trainer, module):
        self.steps.begin()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.steps.end_step(float(outputs["loss"]))


def to_best(job: dict, train: pd.DataFrame) -> dict:
    """Trains until validation no longer improves; validation's time is left out."""
    dataset = as_dataset(train)
    watching = Validation(job, train, dataset)
    model = make_model(job, watching, max_epochs=10_000)
    watching.preparator = model.data_preparator
    model.fit(dataset)
    return {}


class Validation(Watching):
    """Validates after every epoch and writes the curve."""

    def __init__(self, job: dict, train: pd.DataFrame, dataset: Dataset):
        self.curve = Curve(job["curve"], **job["stop"])
        self.users = np.unique(train["user"])
        self.train, self.dataset = train, dataset
        self.targets = pd.read_parquet(job["valid"]).set_index("user")["item"]
        self.seconds, self.losses = 0.0, []
        self.held_out = None

    def on_train_epoch_start(self, trainer, module):
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer, module):
        self.seconds += time.perf_counter() - self.begin
        loss, self.losses = float(np.mean(self.losses)), []
        module.eval()
        with torch.no_grad():
            ndcg = self.validate(module.torch_model)
        module.train()
        trainer.should_stop = self.curve.add(self.seconds, ndcg, loss)

    def validate(self, net) -> float:
        if self.held_out is None:
            self.held_out = self.prepare()
        loader, targets, seen, first = self.held_out
        items = net.item_model.get_all_embeddings()
        total, row = 0.0, 0
        for batch in loader:
            hidden = net.encode_sessions(batch, items)[:, -1, :]
            scores = (hidden @ items[first:].T).float().numpy()
            rows = slice(row, row + len(scores))
            here = (seen[0] >= row) & (seen[0] < row + len(scores))
            places = (seen[0][here] - row, seen[1][here])
            total += ndcg_at_10(scores, targets[rows], places).sum()
            row += len(scores)
        return float(total / len(self.targets))

    def prepare(self):
        """Returns what does not change: histories, targets and seen items by RecTools' numbers."""
        known = self.preparator.transform_dataset_u2i(self.dataset, self.users)
        loader = self.preparator.get_dataloader_recommend(known, 256)
        first = self.preparator.n_item_extra_tokens
        column = pd.Series(
            np.arange(len(self.preparator.get_known_item_ids())),
            index=self.preparator.get_known_item_ids(),
        )
        order = known.user_id_map.external_ids
        targets = self.targets.reindex(order).map(column).fillna(-1).to_numpy(int)
        # Its catalogue is that of the newest behaviours which it reads.
        seen = self.train[self.train["item"].isin(column.index)]
        seen = seen.drop_duplicates(["user", "item"])
        rows = known.user_id_map.convert_to_internal(seen["user"])
        return loader, targets, (rows, column[seen["item"]].to_numpy()), first


def flat_speed(job: dict, train: pd.DataFrame) -> dict:
    """Measures FlatSASRecNet, trained as its package trains the network beside it."""
    sizes = job["sizes"]
    columns = (torch.tensor(train[name].to_numpy()) for name in ("user", "item", "time"))
    x, y, items, users = build_sequences(*columns, max_len=sizes["max_length"])
    net = FlatSASRecNet(
        len(items),
        n_factors=sizes["emb_dim"],
        n_blocks=sizes["num_layers"],
        n_heads=sizes["num_heads"],
        session_max_len=sizes["max_length"],
        dropout=sizes["dropout"],
    )
    for table in (net.item_emb, net.pos_emb):  # as UniSRecNet draws them; PyTorch's own are wide
        torch.nn.init.normal_(table.weight, std=0.02)
    transform = None
    if job["loss"] == "sampled":
        transform = Negatives(len(items), job["negatives"])
    loader = torch.utils.data.DataLoader(
        SequenceBatchDataset(x, y, transform=transform),
        batch_size=job["batch_size"],
        shuffle=True,
        num_workers=job["loader_processes"],
    )
    steps = Steps(len(loader), epochs=job["epochs"], warmup=job["warmup"])
    optimizer = torch.optim.Adam(net.parameters(), lr=job["learning_rate"])
    automatic = torch.autocast("cpu", torch.bfloat16, enabled=job["precision"] == "bf16-mixed")
    steps.begin()
    for _ in range(job["epochs"]):
        for batch in loader:
            with automatic:
                logits = net(batch)
                there = batch["y"] > 0
                wanted = 0 if transform else batch["y"] - 1
                wanted = torch.where(there, wanted, -100)
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.end_step(float(loss))
    result = steps.result()
    histories = newest(x, y)
    seen = seen_places(train, items, users)

    @torch.no_grad()
    def recommend():
        net.eval()
        for first in range(0, len(histories), 256):
            scores = net.encode_last(histories[first : first + 256]) @ net.all_item_embeddings().T
            begin, end = np.searchsorted(seen[0], [first, first + 256])
            scores[seen[0][begin:end] - first, seen[1][begin:end]] = -torch.inf
            scores.topk(10, dim=1)

    result["users_a_second"] = users_a_second(recommend, len(histories))
    return result


class Negatives:
    """Draws negatives for each place of a history, as the package's own sampler does."""

    def __init__(self, items: int, negatives: int):
        self.items, self.negatives = items, negatives

    def __call__(self, row: dict) -> dict:
        shape = (*row["y"].shape, self.negatives)
        return row | {"negatives": torch.randint(1, self.items + 1, shape)}


def newest(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Returns the histories with their newest item, which training only predicts."""
    return torch.cat([x[:, 1:], y[:, -1:]], dim=1)


def seen_places(train: pd.DataFrame, items, users) -> tuple[np.ndarray, np.ndarray]:
    rows = np.searchsorted(users.numpy(), train["user"])
    columns = np.searchsorted(items.numpy(), train["item"])
    order = np.argsort(rows, kind="stable")
    return rows[order], columns[order]


if __name__ == "__main__":
    main()
