"""Trains a masked behaviour model as any Keras model: compile, fit, callbacks, save."""

import argparse

import keras

import tfrec_llm as tr

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--users", type=int, default=2000, help="customers of the simulated shop")
parser.add_argument("--output", default="masked.keras", help="file of the saved model")
arguments = parser.parse_args()

shop = tr.data.ShopSimulator(num_users=arguments.users, num_items=200, seed=1)
split = tr.data.leave_last_out(shop.simulate())
vocabulary = tr.data.Vocabulary.fit(split.train.item)

encoder = tr.models.BehaviorEncoder(vocabulary.size, emb_dim=32, num_layers=2, num_heads=2)
model = tr.models.MaskedBehaviorModel(encoder)
model.compile(keras.optimizers.Adam(2e-3), loss=tr.losses.CatalogCrossEntropy())

scorer = tr.evaluation.ModelScorer(model, vocabulary)
model.fit(
    tr.data.masked_batches(split.train, vocabulary=vocabulary, batch_size=16),
    epochs=arguments.epochs,
    # Early stopping watches what the first callback reports.
    callbacks=[
        tr.evaluation.RankingEvaluation(scorer, split.valid),
        keras.callbacks.EarlyStopping(
            "val_ndcg@10", mode="max", patience=5, restore_best_weights=True
        ),
    ],
    verbose=2,
)

report = scorer.evaluate(split.test)
print(report)
print(f"Perfect knowledge of this shop would reach NDCG@10 {shop.best_score(split.test):.4f}.")
model.save(arguments.output)
again = tr.evaluation.ModelScorer(keras.saving.load_model(arguments.output), vocabulary)
print(f"The saved model reaches NDCG@10 {again.evaluate(split.test)['ndcg@10']:.4f}.")
