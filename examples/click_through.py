"""Pre-trains on a shop's clicks, then learns which product of a page is clicked."""

import argparse

import keras
import numpy as np

import tfrec_llm as tr

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--clicks", type=int, default=20_000, help="page views to learn from")
parser.add_argument("--pre-training", type=int, default=10, help="epochs on the behaviours")
parser.add_argument("--epochs", type=int, default=5, help="epochs on the impressions")
parser.add_argument("--output", default="clicks.keras", help="file of the saved model")
arguments = parser.parse_args()

# For every click the products of its page: one was clicked, the others were not.
shown = tr.data.load_impressions("eshop")
views = shown.column("page_view").to_numpy()
shown = shown.take(views < arguments.clicks)
split = tr.data.impression_split(shown, valid=0.1, test=0.2)

# 1. What visitors did before the test teaches the encoder.
behaviors = split.valid.history
rec = tr.Recommender("next", emb_dim=32, max_length=50, position_encoding="rotary")
rec.fit(behaviors, epochs=arguments.pre_training, verbose=2)

# 2. What an item is goes beside its vector; both learn from clicks.
encoding = tr.data.FeatureEncoding.fit(
    shown.catalogue, columns=["category", "colour", "price", "location"]
)
lookup = tr.layers.FeatureLookup.of(encoding, shown.catalogue, rec.vocabulary)
model = tr.models.ClickModel(
    rec.model.encoder,
    candidate_embedding=tr.layers.ItemEmbedding(rec.vocabulary.size, 32, features=lookup),
    dropout=0.1,
)
model.compile(keras.optimizers.Adam(1e-3), weighted_metrics=["auc"])


def batches(part, **options):
    return tr.data.ranking_batches(part, rec.vocabulary, max_length=50, **options)


model.fit(
    batches(split.train, histories="shared", shuffle=True),
    validation_data=batches(split.valid),
    epochs=arguments.epochs,
    callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)],
    verbose=2,
)

# 3. Against boosted trees on counts that analysts would make.
labels = split.test.column("label").to_numpy()
floor = tr.baselines.ClickFloor("boosting").fit(split.train, validation=split.valid)
for name, probabilities in (
    ("boosting on counts", floor.predict(split.test)),
    ("pre-trained encoder", model.predict(batches(split.test))),
):
    report = tr.evaluation.evaluate_probabilities(
        labels, probabilities, users=split.test.user, confidence=None
    )
    print(name, *(f"{key} {report[key]:.4f}" for key in ("auc", "grouped_auc", "log_loss")))

model.save(arguments.output)
again = keras.saving.load_model(arguments.output).predict(batches(split.test))
print("The saved model gives equal probabilities:", np.allclose(again, probabilities, atol=1e-6))
