"""Trains on the clicks of a clothing shop, compares with counting, recommends, saves."""

import argparse

import tfrec_llm as tr

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--users", type=int, help="train on the first sessions only, to try it fast")
parser.add_argument("--output", default="eshop.tfrec", help="folder of the saved model")
arguments = parser.parse_args()

log = tr.data.load("eshop")
if arguments.users:
    codes, _ = log.user_codes()
    log = log.take(codes < arguments.users)
split = tr.data.leave_last_out(log)

recommender = tr.Recommender("next", max_length=50, dropout=0.3, batch_size=64)
# In this shop people look at the same thing twice, so nothing leaves the ranking.
recommender.fit(
    split.train, validation=split.valid, epochs=arguments.epochs, filter_seen=False, verbose=2
)
print(recommender.compare(split.test, filter_seen=False, metrics=("hr", "ndcg")))

known = recommender.recommend(users=recommender.histories.user_ids[:2], k=3, filter_seen=False)
new = recommender.recommend(histories=[["A13", "B4"]], k=3)
for title, found in (("known sessions", known), ("a new visitor of A13 and B4", new)):
    found["description"] = recommender.catalogue.describe(found["item"].to_list())
    print(f"\nFor {title}:\n{found.to_string(index=False)}")

recommender.save(arguments.output)
loaded = tr.Recommender.load(arguments.output)
print(f"\nSaved, and loaded again: {loaded}")
