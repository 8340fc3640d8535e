"""What is trained on which data set, and how it is judged.

A data set says how it is split, under which protocols it is judged, and how the sequential rules
are fitted. Under F every item of a user's history leaves the ranking, under U nothing does. The
first protocol stops the training. Each protocol that is listed chooses its own epoch, on
validation; test figures of both are reported.

A setting holds arguments of `Recommender` and of its `fit`, by data set and objective.
"""

FILTER_SEEN = {"F": True, "U": False}

_LAST = "each user's last behaviour for test, the one before for validation"
DATA = {
    "ml-1m": {
        "split": _LAST,
        "protocols": ["F"],
        "rules": {"window": 5, "history": 5},
    },
    "beauty_s3": {
        "split": _LAST,
        "protocols": ["U", "F"],
        "rules": {"window": 10, "history": 10},
    },
    "beauty_40k": {
        "split": _LAST,
        "protocols": ["F"],
        "rules": {"window": 10, "history": 10},
    },
    "eshop": {
        "split": "the last click of each session of three or more for test, the one before it "
        "for validation",
        "protocols": ["U"],
        "rules": {"window": 10, "history": 10},
    },
    "online_retail": {
        "split": "purchases; the first basket since 2011-11-01 of each user who bought before is "
        "for test, the first of 2011-10 for validation",
        "protocols": ["U", "F"],
        "rules": {"window": 10, "history": 10},
    },
    # Small enough to try the whole path in seconds; its figures say nothing.
    "simulated": {
        "split": _LAST,
        "protocols": ["F", "U"],
        "rules": {"window": 10, "history": 10},
    },
}

# Blocks as in BERT with a recency filter, small steps of about 1,000 behaviours, and
# an average of the weights: what the sets of short histories gain most from.
_SHORT = {
    "emb_dim": 64,
    "num_layers": 2,
    "num_heads": 2,
    "block": "post_norm",
    "filter_share": 0.7,
    "weight_averaging": 0.7,
    "max_length": 50,
    "batch_size": 16,
}
_COSINE = {"similarity": "cosine", "temperature": 0.07}
_BEAUTY = _SHORT | _COSINE | {"dropout": 0.5, "attention_dropout": 0.5}
_LONG = {
    "emb_dim": 64,
    "num_layers": 2,
    "num_heads": 2,
    "weight_averaging": 0.8,
    "max_length": 200,
    "dropout": 0.2,
}
# Histories are longer than what is read: every epoch draws other windows of them. Models learn for
# long, at noisy gradients: an average of some twenty epochs gains over one of five.
_ML_1M = _LONG | {"block": "gated", "windows": "random", "weight_averaging": 0.95}
# Steps of about 1,000 behaviours learn a fiftieth more than those of 5,000. More dropout helps to
# new items (F) and hurts where customers buy the same again (U).
_BASKETS = _LONG | {"dropout": 0.3, "batch_size": 5}
_NEXT_FIT = {"epochs": 200, "patience": 6}
# Masked models see a fifth of the targets a step, and go on improving for long.
_MASKED_FIT = {"epochs": 300, "patience": 12}
_MASKED = {"objective_options": {"mask_rate": 0.3, "newest_rate": 0.3}}

SETTINGS = {
    ("ml-1m", "next"): {"recommender": _ML_1M, "fit": _NEXT_FIT},
    # The filter spares the masked model the epochs in which it learns that near behaviours matter.
    # Prefixes let it ask for the newest behaviour at many places.
    ("ml-1m", "masked"): {
        "recommender": _ML_1M
        | {
            "dropout": 0.1,
            "filter_share": 0.5,
            "prefix_rate": 0.5,
            "objective_options": {"mask_rate": 0.3, "newest_rate": 0.4},
        },
        "fit": _MASKED_FIT,
    },
    # Scores by angle gain a twentieth under F and a tenth under U, vectors twice as wide some under
    # F, less dropout some under U.
    ("beauty_s3", "next"): {
        "recommender": _BEAUTY | {"emb_dim": 128, "dropout": 0.4},
        "fit": _NEXT_FIT,
    },
    ("beauty_s3", "masked"): {
        "recommender": _SHORT | _MASKED | {"dropout": 0.3},
        "fit": _MASKED_FIT,
    },
    ("beauty_40k", "next"): {"recommender": _BEAUTY, "fit": _NEXT_FIT},
    ("beauty_40k", "masked"): {
        "recommender": _SHORT | _MASKED | {"dropout": 0.3},
        "fit": _MASKED_FIT,
    },
    # The shares dropped and the filter's are what a search found, see the page on tuning.
    ("eshop", "next"): {
        "recommender": _SHORT
        | {"max_length": 64, "dropout": 0.1, "attention_dropout": 0.3, "filter_share": 0.5},
        "fit": _NEXT_FIT,
    },
    ("eshop", "masked"): {
        "recommender": _SHORT | _MASKED | {"max_length": 64, "dropout": 0.2},
        "fit": _MASKED_FIT,
    },
    ("online_retail", "next"): {"recommender": _BASKETS, "fit": _NEXT_FIT},
    ("online_retail", "masked"): {
        "recommender": _BASKETS | _MASKED,
        "fit": _MASKED_FIT,
    },
    ("simulated", "next"): {
        "recommender": {"emb_dim": 16, "num_layers": 1, "max_length": 32},
        "fit": {"epochs": 3, "patience": 3},
    },
    ("simulated", "masked"): {
        "recommender": {"emb_dim": 16, "num_layers": 1, "max_length": 32},
        "fit": {"epochs": 3, "patience": 3},
    },
}
