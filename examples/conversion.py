"""Which mailed household buys what a campaign is about, and which redeems a coupon of it."""

import argparse

import keras
import numpy as np
import pyarrow.compute as pc

import tfrec_llm as tr

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--households", type=int, default=2_500, help="how many to learn from")
parser.add_argument("--pre-training", type=int, default=6, help="epochs on the purchases")
parser.add_argument("--epochs", type=int, default=20, help="most epochs on the mailings")
parser.add_argument("--output", default="conversions.keras", help="file of the saved model")
arguments = parser.parse_args()
EMB_DIM, LENGTH = 32, 64

mailings = tr.data.load_impressions("completejourney")
wanted = pc.unique(mailings.user)[: arguments.households]
purchases = mailings.history
purchases = purchases.take(pc.is_in(purchases.user, value_set=wanted).to_numpy())
mailings = mailings.take(pc.is_in(mailings.user, value_set=wanted).to_numpy(), history=purchases)
split = tr.data.impression_split(mailings, valid_from="2017-08-08", test_from="2017-10-30")

# A campaign is about thousands of products, most of which a household never met. So the encoder
# reads kinds of products, such as "MILK/WHOLE MILK".
products = purchases.catalogue
words = [pc.fill_null(products.column(name), "") for name in ("category", "type")]
kinds = pc.binary_join_element_wise(*words, "/")


def kinds_of(items):
    return pc.fill_null(kinds.take(pc.index_in(items, value_set=products.ids)), "/")


def readable(part):
    """The same mailings after purchases of kinds, each once a basket."""
    table = part.history.table.select(["user", "time"])
    table = table.append_column("item", kinds_of(part.history.item))
    once = table.group_by(["user", "time", "item"], use_threads=False).aggregate([])
    return tr.data.BehaviorLog(part.table, history=tr.data.BehaviorLog(once), labels=part.labels)


train, valid, test = (readable(part) for part in (split.train, split.valid, split.test))

# 1. What households bought before the test teaches the encoder.
rec = tr.Recommender(
    "next",
    emb_dim=EMB_DIM,
    num_layers=1,
    max_length=LENGTH,
    min_count=20,
    position_encoding="rotary",
    windows="random",
)
rec.fit(valid.history, epochs=arguments.pre_training, verbose=2)
rec.save("kinds.tfrec")

# 2. A campaign is its features and the kinds of products that its coupons are for.
catalogue = mailings.catalogue
campaigns = tr.data.Vocabulary(catalogue.ids)
encoding = tr.data.FeatureEncoding.fit(
    catalogue.lookup(pc.unique(train.item)),
    columns=["type", "days", "num_coupons", "num_products"],
)
context = tr.data.FeatureEncoding.fit(train.table, columns=mailings.context)
lookup = tr.layers.FeatureLookup.of(encoding, catalogue, campaigns)
coupons = tr.data.load_coupons()


def made(model_class):
    """A model around the encoder as it was pre-trained.

    The encoder stays as it is: some hundred redemptions cannot teach it more than a million
    purchases did.
    """
    encoder = tr.Recommender.load("kinds.tfrec").model.encoder
    tr.training.freeze(encoder)
    contents = tr.layers.ItemContents(
        campaigns.size,
        rec.vocabulary.size,
        candidates=campaigns.encode(coupons["candidate"]),
        items=rec.vocabulary.encode(kinds_of(coupons["item"]), on_unknown="unknown"),
    )
    return model_class(
        encoder,
        candidate_embedding=tr.layers.ItemEmbedding(
            campaigns.size, EMB_DIM, features=lookup, id_dropout=0.5
        ),
        contents=contents,
        context=tr.layers.FeatureEmbedding(context, EMB_DIM),
        dropout=0.5,
    )


def batches(part, labels, **options):
    return tr.data.ranking_batches(
        part,
        rec.vocabulary,
        candidates=campaigns,
        context=context,
        labels=labels,
        max_length=LENGTH,
        batch_size=256,
        **options,
    )


def fitted(model_class, labels, loss="val_loss"):
    keras.utils.set_random_seed(0)
    model = made(model_class)
    model.compile(keras.optimizers.AdamW(3e-3, weight_decay=0.01))
    model.fit(
        batches(train, labels, histories="shared", shuffle=True),
        validation_data=batches(valid, labels),
        epochs=arguments.epochs,
        callbacks=[
            keras.callbacks.EarlyStopping(loss, mode="min", patience=3, restore_best_weights=True)
        ],
        verbose=2,
    )
    return model


# 3. Redemptions alone; and with the purchases that every redemption needs, which are six times
# as many: p(redeems) = p(buys) p(redeems | buys).
alone = fitted(tr.models.ClickModel, "label")
both = fitted(
    tr.models.ConversionModel,
    {"click": "bought", "conversion": "label"},
    loss="val_conversion_loss",
)

# 4. Against logistic regression on counts that analysts would make.
floor = tr.baselines.ClickFloor(
    "logistic",
    features=tr.baselines.ImpressionFeatures(
        amounts=["sales_value", "coupon_discount", "retail_discount"],
        contents=coupons,
        related={"departments": "department", "categories": "category"},
        known={"candidate": ["type", "days", "num_coupons", "num_products"]},
    ),
)
floor.fit(split.train, validation=split.valid)
found = both.predict(batches(test, None))
for name, label, probabilities in (
    ("logistic regression on counts", "label", floor.predict(split.test)),
    ("model of redemptions alone", "label", alone.predict(batches(test, None))),
    ("model of purchases and redemptions", "label", found["conversion"]),
    ("the same, of purchases", "bought", found["click"]),
):
    report = tr.evaluation.evaluate_probabilities(
        test.column(label).to_numpy(), probabilities, users=test.user, confidence=None
    )
    print(f"{name}: AUC {report['auc']:.4f}, log loss {report['log_loss']:.4f}")
assert (found["conversion"] <= found["click"]).all()

both.save(arguments.output)
again = keras.saving.load_model(arguments.output).predict(batches(test, None))
same = all(np.allclose(again[task], found[task], atol=1e-6) for task in found)
print("The saved model gives equal probabilities:", same)
