"""The Complete Journey: a year of a grocery's purchases, and whose mailed coupons were redeemed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.feature_table import Catalogue, UserTable
from tfrec_llm.data.feature_types import FeatureType
from tfrec_llm.data.id_index import dictionary_encode
from tfrec_llm.data.past_rows import PastRows
from tfrec_llm.data.reading import read_parquet

_PRODUCTS = {
    "product_id": "item",
    "department": "department",
    "product_category": "category",
    "product_type": "type",
    "brand": "brand",
    "package_size": "package_size",
}
_PURCHASES = {
    "quantity": "quantity",
    "sales_value": "sales_value",
    "retail_disc": "retail_discount",
    "coupon_disc": "coupon_discount",
    "coupon_match_disc": "coupon_match_discount",
    "store_id": "store",
    "basket_id": "basket",
    "week": "week",
}
_DAY = 86_400_000_000


def read_purchases(folder: Path) -> BehaviorLog:
    """Reads all purchases, a product of a basket a row, in the order of time."""
    named = {"household_id": "user", "product_id": "item", "transaction_timestamp": "time"}
    table = _read(folder, "transactions", named | _PURCHASES)
    products = _read(folder, "products", _PRODUCTS)
    return BehaviorLog.from_arrow(
        table,
        context=list(_PURCHASES.values()),
        catalogue=Catalogue(products, types=_as_words(products)),
        users=_read_households(folder),
    )


def read_mailings(folder: Path) -> BehaviorLog:
    """Reads the mailings of campaigns to households, with the purchases as their history."""
    campaigns = _read_campaigns(folder)
    table = _read(folder, "campaigns", {"household_id": "user", "campaign_id": "item"})
    names = {"household_id": "user", "campaign_id": "item", "redemption_date": "time"}
    redemptions = _read(folder, "coupon_redemptions", names)
    table = table.append_column("time", campaigns.lookup(table["item"])["start"])
    redeemed = _redeemed(table, redemptions)
    table = table.append_column("label", pa.array(redeemed))
    history = read_purchases(folder)
    # A coupon is redeemed by buying its product, also where no such purchase is on record.
    bought = np.maximum(_bought(table, campaigns, read_coupons(folder), history), redeemed)
    table = table.append_column("bought", pa.array(bought))
    users, known = dictionary_encode(table["user"])
    moments = _microseconds(table["time"])
    starts, ends = PastRows(users, moments).before(users, moments)
    table = table.append_column("mailings_before", pa.array(ends - starts))
    # A redemption is known by its day, and a campaign starts as its day does.
    days = _microseconds(redemptions["time"])
    by = pc.fill_null(pc.index_in(redemptions["user"], value_set=known), -1).to_numpy()
    past = PastRows(by.astype(np.int64), days)
    starts, ends = past.before(users, moments)
    table = table.append_column("redemptions_before", pa.array(ends - starts))
    some = ends > starts
    since = np.zeros(len(table))
    since[some] = (moments[some] - days[past.order[ends[some] - 1]]) / _DAY
    table = table.append_column("days_since_redemption", pa.array(since, mask=~some))
    return BehaviorLog(
        table, catalogue=campaigns, users=history.users, history=history, labels=["bought"]
    )


def read_coupons(folder: Path) -> pa.Table:
    """Reads which products each coupon of each campaign is for."""
    names = {"campaign_id": "candidate", "product_id": "item", "coupon_upc": "coupon"}
    table = _read(folder, "coupons", names)
    return table.sort_by([(name, "ascending") for name in ("candidate", "coupon", "item")])


def _read(folder: Path, name: str, columns: dict[str, str]) -> pa.Table:
    table = read_parquet(folder / f"{name}.parquet", columns=list(columns))
    return table.rename_columns(list(columns.values()))


def _as_words(table: pa.Table) -> dict[str, FeatureType]:
    """Gives all columns but the first, the key, the type of words."""
    return dict.fromkeys(table.column_names[1:], "categorical")


def _microseconds(times: pa.ChunkedArray) -> np.ndarray:
    return times.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()


def _read_households(folder: Path) -> UserTable:
    table = read_parquet(folder / "demographics.parquet")
    return UserTable(table, key="household_id", types=_as_words(table))


def _read_campaigns(folder: Path) -> Catalogue:
    """Returns the campaigns and what their coupons are for, the most frequent words first."""
    names = {"campaign_id": "item", "campaign_type": "type", "start_date": "start"}
    table = _read(folder, "campaign_descriptions", names | {"end_date": "end"})
    days = pc.days_between(table["start"], table["end"])
    table = table.drop_columns(["end"]).append_column("days", days)
    coupons = read_coupons(folder)
    counts = coupons.group_by("candidate").aggregate(
        [("coupon", "count_distinct"), ("item", "count_distinct")]
    )
    counts = counts.rename_columns(["item", "num_coupons", "num_products"])
    words = _read(folder, "products", _PRODUCTS).select(["item", "department", "category"])
    pairs = coupons.group_by(["candidate", "item"], use_threads=False).aggregate([])
    described = pairs.join(words, "item", join_type="left outer", use_threads=False)
    for parts in (
        counts,
        _word_lists(described, "department", "departments"),
        _word_lists(described, "category", "categories"),
    ):
        rows = pc.index_in(table["item"], value_set=parts["item"].combine_chunks())
        for name in parts.column_names[1:]:
            table = table.append_column(name, parts[name].combine_chunks().take(rows))
    return Catalogue(table.sort_by("item"), types={"type": "categorical"})


def _word_lists(described: pa.Table, word: str, name: str) -> pa.Table:
    counts = described.group_by(["candidate", word], use_threads=False).aggregate(
        [("item", "count")]
    )
    counts = counts.filter(pc.is_valid(counts[word]))
    counts = counts.sort_by(
        [("candidate", "ascending"), ("item_count", "descending"), (word, "ascending")]
    )
    lists = counts.group_by("candidate", use_threads=False).aggregate([(word, "list")])
    return lists.rename_columns(["item", name])


def _redeemed(mailings: pa.Table, redemptions: pa.Table) -> np.ndarray:
    """float32: 1 for a mailing of which the household redeemed a coupon, 0 for another."""
    pairs = redemptions.group_by(["user", "item"]).aggregate([])
    pairs = pairs.append_column("redeemed", pa.repeat(np.float32(1), len(pairs)))
    numbered = mailings.append_column("row", pa.array(np.arange(len(mailings))))
    joined = numbered.join(pairs, ["user", "item"], join_type="left outer").sort_by("row")
    return pc.fill_null(joined["redeemed"], np.float32(0)).to_numpy()


def _bought(
    mailings: pa.Table, campaigns: Catalogue, coupons: pa.Table, purchases: BehaviorLog
) -> np.ndarray:
    """float32: 1 for a mailing whose household bought, while the campaign ran, what it is about."""
    bought = np.zeros(len(mailings), np.float32)
    times = purchases.times()
    begins = _microseconds(campaigns.column("start"))
    ends = begins + (campaigns.column("days").to_numpy() + 1) * _DAY
    for campaign, begin, end in zip(campaigns.ids, begins, ends, strict=True):
        products = coupons.filter(pc.equal(coupons["candidate"], campaign))["item"]
        then = purchases.table.filter(pa.array((times >= begin) & (times < end)))
        buyers = then.filter(pc.is_in(then["item"], value_set=products))["user"]
        by_buyer = pc.is_in(mailings["user"], value_set=buyers)
        bought[pc.and_(pc.equal(mailings["item"], campaign), by_buyer).to_numpy()] = 1.0
    return bought
