"""Pre-trains on baskets of a gift shop by several objectives, and fine-tunes by the next item."""

import argparse

import keras

import tfrec_llm as tr

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=15, help="of pre-training, and of fine-tuning")
parser.add_argument("--users", type=int, default=800, help="customers that are read")
parser.add_argument(
    "--objectives", nargs="+", default=["attributes", "contrastive", "session"], help="some of them"
)
parser.add_argument("--output", default="joint.keras", help="file of the jointly trained model")
arguments = parser.parse_args()

log = tr.data.load("online_retail")


def purchases_of_some(log):
    """Keeps what the first customers bought."""
    frame = log.to_pandas()
    some = frame["user"].dropna().unique()[: arguments.users]
    return (frame["behavior"].eq("purchase") & frame["user"].isin(some)).to_numpy()


cleaned = tr.data.clean(log, [tr.data.DropNulls(), purchases_of_some, tr.data.KCore(user=3)])
split = tr.data.leave_last_out(cleaned.log)
vocabulary = tr.data.Vocabulary.fit(split.train.item)
options = {"vocabulary": vocabulary, "max_length": 100}

# A basket is a session; the words of a title are an item's attributes.
attributes = tr.data.item_attributes(split.train.catalogue, vocabulary, columns=["title"])
print(f"{len(attributes.names)} attributes, such as {', '.join(attributes.names[:5])}")
batches = {
    "attributes": tr.data.next_batches(split.train, **options),
    "contrastive": tr.data.contrastive_batches(split.train, **options),
    "session": tr.data.next_session_batches(
        split.train, vocabulary=vocabulary, column="invoice", max_length=50
    ),
}
models = {
    "attributes": lambda encoder: tr.models.AttributeModel(encoder, attributes.indexes),
    "contrastive": tr.models.ContrastiveModel,
    "session": tr.models.NextSessionModel,
}
models = {name: models[name] for name in arguments.objectives}
batches = {name: batches[name] for name in arguments.objectives}


def new_encoder():
    keras.utils.set_random_seed(0)
    return tr.models.BehaviorEncoder(
        vocabulary.size, emb_dim=32, num_layers=1, max_length=100, causal=True
    )


def fine_tuned(encoder):
    """Trains by the next behaviour and returns NDCG@10 on test."""
    model = tr.models.NextBehaviorModel(encoder)
    model.compile(keras.optimizers.Adam(2e-3))
    model.fit(tr.data.next_batches(split.train, **options), epochs=arguments.epochs, verbose=0)
    scorer = tr.evaluation.ModelScorer(model, vocabulary)
    return scorer.evaluate(split.test, confidence=None)["ndcg@10"]


print(f"no pre-training: NDCG@10 {fine_tuned(new_encoder()):.4f}")
for name, make in models.items():
    encoder = new_encoder()
    model = make(encoder)
    model.compile(keras.optimizers.Adam(2e-3))
    history = model.fit(batches[name], epochs=arguments.epochs, verbose=0).history
    reached = ", ".join(f"{metric} {values[-1]:.3f}" for metric, values in history.items())
    print(f"pre-trained by {name} ({reached}): NDCG@10 {fine_tuned(encoder):.4f}")

encoder = new_encoder()
joint = tr.models.JointModel(
    {"next": tr.models.NextBehaviorModel(encoder)}
    | {name: make(encoder) for name, make in models.items()}
)
joint.compile(keras.optimizers.Adam(2e-3), loss_weights=dict.fromkeys(models, 0.1))
together = tr.data.JointBatches({"next": tr.data.next_batches(split.train, **options)} | batches)
joint.fit(together, epochs=arguments.epochs, verbose=0)
scorer = tr.evaluation.ModelScorer(joint.models["next"], vocabulary)
report = scorer.evaluate(split.test, confidence=None)
print(f"all at once: NDCG@10 {report['ndcg@10']:.4f}")

joint.save(arguments.output)
loaded = keras.saving.load_model(arguments.output)
again = tr.evaluation.ModelScorer(loaded.models["next"], vocabulary)
print(f"saved and loaded: NDCG@10 {again.evaluate(split.test, confidence=None)['ndcg@10']:.4f}")
