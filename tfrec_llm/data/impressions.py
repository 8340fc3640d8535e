"""Impressions by name: what users were shown, and whether they took it."""

import os
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.complete_journey import read_coupons, read_mailings
from tfrec_llm.data.datasets import find_file, load
from tfrec_llm.data.id_index import dictionary_encode
from tfrec_llm.data.packing import ranges
from tfrec_llm.data.row_numbers import stable_order, take_rows
from tfrec_llm.errors import DatasetNotFoundError

_Path = str | os.PathLike[str] | None


def load_impressions(name: str, *, path: _Path = None) -> BehaviorLog:
    """Loads an impression log: what was shown to whom, when, and whether it was taken.

    It is a `BehaviorLog` with a `label`, 1 or 0, in every row. Its `history` is the log of what
    the users did, its `catalogue` describes the candidates and its `users` the users. Of the
    history, whoever predicts a row's label may see what lies strictly before the row's time; the
    context columns and the features of candidates and users keep to that already.

    - `"completejourney"`: a row for each of the 6,589 mailings of a campaign to a household, at
      the start of the campaign; the label is 1 where the household redeemed a coupon of it (792,
      12.0 %). A second label, `bought`, is 1 where it bought a product of one of the coupons, from
      the start of the campaign to the end of its last day (4,906, 74.5 %). Who redeems buys: 14
      households redeemed without such a purchase on record, and count as having bought.
      History: the purchases, whose catalogue describes products. Catalogue: type, start
      and days of a campaign, number of its coupons and of the products these are for, and the
      departments and categories of these, the most frequent first. Users: demographics, known of
      801 of the 2,469 households. Context: how many campaigns were mailed to the household and
      how many coupons it redeemed before the start, and the days since it last did (null: never).
      Purchases are timed in UTC, four or five hours ahead of the shops, so a history ends on the
      evening before the start. Purchases begin with 2017, after the start of three campaigns
      (147 mailings); redemptions end with it, while five campaigns still ran.
    - `"ml-100k"`: a row for each of the 100,000 ratings; the label is 1 for four and five stars.
      History: the same ratings, with label and rating. Many ratings of a user share one second;
      none of them is before another.
    - `"eshop"`: which product of a page was clicked. Derived, as the shop logged clicks and not
      what it showed: for every click a row for each product that the catalogue puts on the page
      of the clicked one (same category, same page number), at the click's time. The label is 1
      for the clicked product and 0 for the 4 to 18 others, which the visitor need not have looked
      at. 209 of the 217 products were clicked on the first day of the log, so nearly all of them
      were there throughout. History: the clicks. Context: country, and the number of the
      page view, which is the clicks' row.

    Args:
        name: One of the names above.
        path: The folder that holds the data set's files, as for `load`.

    Returns:
        The impressions.

    Raises:
        DatasetNotFoundError: If there are no such impressions, or their files are not found;
            says where to get them.
        DataFileError: If a file is damaged.

    Example:
        >>> impressions = load_impressions("eshop")
        >>> len(impressions), len(impressions.history)
        (2813780, 165474)
        >>> impressions.take(np.arange(18)).to_pandas().query("label == 1").item.tolist()
        ['A13']
    """
    if name not in _IMPRESSIONS:
        raise DatasetNotFoundError(
            f"There are no impressions {name!r}; there are {', '.join(_IMPRESSIONS)}."
        )
    return _IMPRESSIONS[name](path)


def load_coupons(*, path: _Path = None) -> pa.Table:
    """Loads which products the coupons of completejourney's campaigns are for.

    Args:
        path: The folder that holds the data set's files, as for `load`.

    Returns:
        A row for each product of each coupon of each campaign, 116,204 of them. Columns, all
        int64: `candidate`, the campaign, an item of the impressions; `item`, the product, an item
        of their history; `coupon`, the coupon's code.

    Raises:
        DatasetNotFoundError: If the files are not found; says where to get them.
        DataFileError: If a file is damaged.
    """
    return read_coupons(find_file("completejourney", path).parent)


def _completejourney(path: _Path) -> BehaviorLog:
    return read_mailings(find_file("completejourney", path).parent)


def _ml_100k(path: _Path) -> BehaviorLog:
    ratings = load("ml-100k", path=path)
    # The stars say what the label is, so they stay in the history.
    return BehaviorLog(
        ratings.table.drop_columns(["rating"]),
        catalogue=ratings.catalogue,
        users=ratings.users,
        history=ratings,
    )


def _eshop(path: _Path) -> BehaviorLog:
    clicks = load("eshop", path=path)
    catalogue = clicks.catalogue
    assert catalogue is not None
    page = pc.binary_join_element_wise(catalogue.column("category"), catalogue.column("page"), "/")
    page_of, names = dictionary_encode(page)
    by_page = stable_order(page_of, len(names))
    sizes = np.bincount(page_of)
    codes, items = clicks.item_codes()
    clicked = pc.index_in(items, value_set=catalogue.ids).to_numpy()[codes]
    pages = page_of[clicked]
    view = np.repeat(np.arange(len(clicks)), sizes[pages])
    shown = by_page[ranges((np.cumsum(sizes) - sizes)[pages], sizes[pages])]
    table = take_rows(clicks.table.drop_columns(["item"]), view)
    table = table.append_column("item", catalogue.ids.take(pa.array(shown)))
    label = (shown == clicked[view]).astype(np.float32)
    table = table.append_column("label", pa.array(label))
    table = table.append_column("page_view", pa.array(view))
    return BehaviorLog(table, catalogue=catalogue, history=clicks)


_IMPRESSIONS: dict[str, Callable[[_Path], BehaviorLog]] = {
    "completejourney": _completejourney,
    "ml-100k": _ml_100k,
    "eshop": _eshop,
}
