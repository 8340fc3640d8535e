"""Cleans the invoice lines of a gift shop, splits them in time and counts what sells."""

import argparse

import tfrec_llm as tr

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=0, help="train a model beside the floors, too")
parser.add_argument("--output", default="purchases.parquet", help="file of the cleaned log")
arguments = parser.parse_args()

log = tr.data.load("online_retail")
print(log, "\n")


def only_purchases(log):
    """A step of one's own is a function that says which rows are kept."""
    return log.to_pandas()["behavior"].eq("purchase").to_numpy()


cleaned = tr.data.clean(
    log,
    [
        tr.data.DropNulls(),
        only_purchases,
        tr.data.DropDuplicates(),
        tr.data.DropRepeats(),
        tr.data.DropRobots(max_behaviors=500, per="1D"),
        tr.data.KCore(user=5, item=5),
    ],
)
print(cleaned.report, "\n")
cleaned.log.to_parquet(arguments.output)

split = tr.data.temporal_split(cleaned.log, valid=0.1, test=0.1)
for name in ("train", "valid", "test"):
    part = getattr(split, name)
    print(f"{name:<6}{len(part):>9,} lines of {part.num_users:,} customers")

scorers = {
    "popularity": tr.baselines.Popularity().fit(split.train),
    "item neighbours": tr.baselines.ItemNeighbors().fit(split.train),
}
if arguments.epochs:
    model = tr.Recommender("next", emb_dim=32, num_layers=1, max_length=100)
    model.fit(split.train, validation=split.valid, epochs=arguments.epochs, verbose=2)
    scorers["next behaviour"] = model
print(tr.evaluation.compare(scorers, split.test, metrics=("hr", "ndcg", "recall")))
