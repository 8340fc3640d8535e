"""The impression logs that are ranked, and what models read of them."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.baselines import ImpressionFeatures
from tfrec_llm.data import (
    BehaviorLog,
    Catalogue,
    Split,
    Vocabulary,
    impression_split,
    load_coupons,
    load_impressions,
)

# What of a problem is data, not a setting.
_DATA = ("split", "readable", "counted", "contents")


@dataclass
class Problem:
    """Impressions, cut in time, for floors and for models.

    Attributes:
        split: Impressions as they are, for the floors.
        readable: The same with the histories that models read.
        counted: Makes the hand-made features of the floors.
        candidate_features: Columns of the candidates' catalogue that models read.
        user_features: Columns of the users.
        context: Columns of the impressions.
        contents: Where candidates are no items of the histories but about some: the columns
            `candidate` and `item`.
        max_length: Newest behaviours that are read.
        min_count: Items of the histories that are rarer become unknown.
        pre_training: Epochs over all behaviours before the test.
        pre_training_rows: Packed rows a step of it; None for the library's choice.
        affinity: Whether what pre-training says leads to the logit; of two, validation chooses.
    """

    split: Split
    readable: Split
    counted: ImpressionFeatures
    candidate_features: list[str]
    user_features: list[str]
    context: list[str]
    contents: pa.Table | None = None
    max_length: int = 200
    min_count: int = 1
    pre_training: int = 30
    pre_training_rows: int | None = None
    affinity: tuple[bool, ...] = (True,)

    @property
    def behaviors(self) -> BehaviorLog:
        """All behaviours before the first test impression, to pre-train on."""
        history = self.readable.valid.history
        assert history is not None
        return history

    @property
    def settings(self) -> dict[str, Any]:
        """What a result depends on, as JSON holds it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name not in _DATA
        }

    @property
    def candidate_catalogue(self) -> Catalogue:
        """What is known of the candidates."""
        catalogue = self.split.train.catalogue
        assert catalogue is not None
        return catalogue

    def item_vocabulary(self) -> Vocabulary:
        """Returns the items of the histories, those of pre-training."""
        return Vocabulary.fit(self.behaviors.item, min_count=self.min_count)


def problem(name: str) -> Problem:
    """Returns a problem by name."""
    return PROBLEMS[name]()


def _completejourney() -> Problem:
    """Which mailed household redeems a coupon.

    Models read visits and what kinds of product were bought with coupons: a campaign is about
    thousands of products, most of which a household never met, and single purchases would leave
    room for the last few weeks only. So pre-training learns how often who uses coupons for what.
    """
    log = load_impressions("completejourney")
    assert log.history is not None
    products = log.history.catalogue
    assert products is not None
    category, kind = (pc.fill_null(products.column(name), "") for name in ("category", "type"))
    named = pc.binary_join_element_wise(category, kind, "/")
    with_coupon = pc.binary_join_element_wise("coupon", named, ": ").combine_chunks()

    def of_items(items: pa.ChunkedArray) -> pa.ChunkedArray:
        # A few products are in no catalogue.
        return pc.fill_null(with_coupon.take(pc.index_in(items, value_set=products.ids)), "coupon")

    def readable(part: BehaviorLog) -> BehaviorLog:
        assert part.history is not None
        history = part.history
        used = history.table.filter(pc.not_equal(history.column("coupon_discount"), 0))
        coupons, visits = (rows.select(["user", "time"]) for rows in (used, history.table))
        coupons = coupons.append_column("item", of_items(used["item"]))
        visits = visits.append_column("item", pa.repeat("visit", len(visits)))
        both = pa.concat_tables([coupons, visits])
        once = both.group_by(["user", "time", "item"], use_threads=False).aggregate([])
        return BehaviorLog(
            part.table,
            catalogue=part.catalogue,
            users=part.users,
            history=BehaviorLog(once),
            labels=part.labels,
        )

    coupons = load_coupons()
    about = pa.table({"candidate": coupons["candidate"], "item": of_items(coupons["item"])})
    # From then on all three types of campaign are mailed.
    split = impression_split(log, valid_from="2017-08-08", test_from="2017-10-30")
    return Problem(
        split=split,
        readable=Split(*(readable(part) for part in (split.train, split.valid, split.test))),
        counted=ImpressionFeatures(
            amounts=["sales_value", "coupon_discount", "retail_discount"],
            contents=coupons,
            related={"departments": "department", "categories": "category"},
            known={"candidate": ["type", "days", "num_coupons", "num_products"]},
        ),
        candidate_features=["type", "days", "num_coupons", "num_products", "departments"],
        user_features=["age", "income", "household_size", "household_comp", "kids_count"],
        context=["mailings_before", "redemptions_before", "days_since_redemption"],
        contents=about,
        max_length=256,
        min_count=8,
        pre_training=60,
        pre_training_rows=4,
        # Few labels do not teach how much of it the counts know already.
        affinity=(True, False),
    )


def _ml_100k() -> Problem:
    """Four and five stars, or fewer."""
    split = impression_split(load_impressions("ml-100k"), valid=0.1, test=0.2)
    return Problem(
        split=split,
        readable=split,
        counted=ImpressionFeatures(),
        candidate_features=["year", "genres"],
        user_features=["age", "gender", "occupation"],
        context=[],
    )


PROBLEMS = {"completejourney": _completejourney, "ml-100k": _ml_100k}
