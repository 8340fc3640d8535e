import numpy as np
import pytest

from tfrec_llm.data.augmentation import crop, drop, mask, reorder
from tfrec_llm.data.batches import padded_batch
from tfrec_llm.data.impression_batches import RankingBatches
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import MASK

LENGTHS = [0, 1, 2, 3, 10, 16]
EVERY = {"crop": crop, "drop": drop, "mask": mask, "reorder": reorder}


@pytest.fixture
def batch():
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    items = np.arange(3, 3 + offsets[-1], dtype=np.int32)  # ascending, so order can be seen
    found = padded_batch(UserSequences(items, offsets))
    return found | {"behaviors": found["items"] % 3 + found["segments"], "users": np.arange(6)}


def histories(batch):
    return [items[row > 0].tolist() for items, row in zip(*_of(batch), strict=True)]


def _of(batch):
    return batch["items"], batch["segments"]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.6, 1.0])
def test_a_crop_is_a_stretch_of_its_share_with_positions_of_its_own(batch, rate):
    for seed in range(20):
        found = crop(batch, rng(seed), rate=rate)
        for before, after in zip(histories(batch), histories(found), strict=True):
            assert len(after) == min(len(before), max(1, int(len(before) * rate + 1e-9)))
            # Items ascend by one, so a stretch does, too.
            assert after == list(range(after[0], after[0] + len(after))) if after else not before
            assert set(after) <= set(before)
        for row, length in enumerate((found["segments"] > 0).sum(axis=1)):
            assert found["segments"][row].tolist() == [0] * (16 - length) + [1] * length
            assert found["positions"][row, 16 - length :].tolist() == list(range(length))[::-1]
            assert not found["items"][row, : 16 - length].any()
            assert not found["positions"][row, : 16 - length].any()


def test_every_stretch_is_drawn(batch):
    begins = {histories(crop(batch, rng(seed), rate=0.3))[4][0] for seed in range(200)}
    assert begins == set(range(histories(batch)[4][0], histories(batch)[4][0] + 8))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.99])
def test_drop_leaves_the_share_out_and_keeps_the_order(batch, rate):
    found = drop(batch, rng(), rate=rate)
    for before, after in zip(histories(batch), histories(found), strict=True):
        assert len(after) == len(before) - int(len(before) * rate)
        assert after == sorted(after)
        assert set(after) <= set(before)
    for row, after in enumerate(histories(found)):
        length = len(after)
        assert found["positions"][row, 16 - length :].tolist() == list(range(length))[::-1]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.99])
def test_mask_hides_the_share_at_its_places(batch, rate):
    found = mask(batch, rng(), rate=rate)
    hidden = found["items"] != batch["items"]
    assert (found["items"][hidden] == MASK).all()
    assert (found["behaviors"][hidden] == 0).all()
    assert (found["behaviors"] == batch["behaviors"])[~hidden].all()
    assert hidden.sum(axis=1).tolist() == [int(length * rate) for length in LENGTHS]
    for name in ("segments", "positions"):
        np.testing.assert_array_equal(found[name], batch[name])


def test_reorder_shuffles_one_stretch_and_behaviours_stay_whole(batch):
    moved = 0
    for seed in range(20):
        found = reorder(batch, rng(seed), rate=0.5)
        present = batch["segments"] > 0
        np.testing.assert_array_equal(found["behaviors"][present], found["items"][present] % 3 + 1)
        for before, after in zip(histories(batch), histories(found), strict=True):
            assert sorted(after) == before
            changed = np.flatnonzero(np.array(before) != np.array(after))
            moved += len(changed)
            if len(changed):
                assert changed[-1] - changed[0] < len(before) // 2
        for name in ("segments", "positions"):
            np.testing.assert_array_equal(found[name], batch[name])
    assert moved


def test_padding_may_stand_on_the_right(batch):
    lengths = np.array(LENGTHS)[:, None]
    order = (np.arange(16) + 16 - lengths) % 16
    moving = ("items", "segments", "positions", "behaviors")
    turned = {name: np.take_along_axis(batch[name], order, axis=1) for name in moving}
    assert histories(crop(turned, rng(), rate=0.5)) == histories(crop(batch, rng(), rate=0.5))
    for change in (crop, drop):
        found = change(turned, rng(), rate=0.5)
        lengths = (found["segments"] > 0).sum(axis=1)[:, None]
        np.testing.assert_array_equal(found["segments"] > 0, np.arange(16) < lengths)
    for change in (mask, reorder):
        found = change(turned, rng(), rate=0.5)
        assert (found["items"] != turned["items"]).any()
        np.testing.assert_array_equal(found["items"] > 0, turned["items"] > 0)


@pytest.mark.parametrize("kind", ["own", "shared", "masked"])
@pytest.mark.parametrize("change", [crop, drop, mask, reorder])
def test_packed_histories_change_one_by_one_and_targets_follow_them(change, kind):
    sequences = UserSequences(
        np.arange(3, 20, dtype=np.int32), np.array([0, 8, 12, 14, 17]), times=np.arange(17) * 10
    )
    batches = RankingBatches(
        sequences,
        users=[0, 0, 0, 1, -1, 2, 3, 3],
        times=[1, 35, 99, 999, 5, 999, 145, 999],
        candidates=[3] * 8,
        histories=kind,
    )
    batch = batches[0]
    assert batch["segments"].max() > 1
    for seed in range(20):
        found = change(batch, rng(seed), rate=0.5)
        for before, after in zip(packed(batch), packed(found), strict=True):
            kept = [item for item in after if item != MASK]
            size = len(before) - (kind == "masked")
            asking = [MASK] if kind == "masked" else []
            if change is reorder:
                assert sorted(kept) == before[:size]
            elif change is mask:
                assert not size or kept
                assert len(kept) == size - size // 2
            else:
                assert len(kept) == max(
                    min(size, 1), size // 2 if change is crop else size - size // 2
                )
                assert kept == sorted(kept)
                assert set(kept) <= set(before)
            assert after[len(after) - len(asking) :] == asking
        for row, target in zip(*np.nonzero(batch["candidates"]), strict=True):
            known, place = (batch[n][row, target] for n in ("history_lengths", "target_positions"))
            left, now = (found[n][row, target] for n in ("history_lengths", "target_positions"))
            if not known:
                assert left == 0
                continue
            own = batch["segments"][row] == batch["segments"][row, place]
            read = batch["items"][row, np.flatnonzero(own)[:known]]
            stays = found["segments"][row] == batch["segments"][row, place]
            if change in (crop, drop):
                stays &= np.isin(found["items"][row], read)
                assert left == stays.sum()
                expected = np.flatnonzero(stays)
                if kind == "masked":
                    assert found["items"][row, now] == MASK
                elif len(expected):
                    assert now == expected[-1]
            else:
                assert (left, now) == (known, place)


def packed(batch):
    """The histories of each row by segment, newest last."""
    return [
        items[segments == segment].tolist()
        for items, segments in zip(*_of(batch), strict=True)
        for segment in np.unique(segments[segments > 0])
    ]


@pytest.mark.parametrize("change", [crop, drop])
def test_targets_follow_where_padding_stands_on_the_left(change):
    batch = padded_batch(UserSequences(np.arange(3, 9, dtype=np.int32), np.array([0, 6])))
    found = change(batch | {"target_positions": np.array([[7]])}, rng(1), rate=0.5)
    last = found["items"][0, found["target_positions"][0, 0]]
    assert last == found["items"][0].max()


@pytest.mark.parametrize("name", EVERY)
def test_a_seed_repeats_and_the_batch_itself_stays_as_it_was(batch, name):
    before = {key: values.copy() for key, values in batch.items()}
    first, again, other = (EVERY[name](batch, rng(seed), rate=0.5) for seed in (1, 1, 2))
    assert first.keys() == batch.keys()
    for key in batch:
        np.testing.assert_array_equal(first[key], again[key])
        np.testing.assert_array_equal(batch[key], before[key])
        assert first[key].dtype == batch[key].dtype
        assert first[key].shape == batch[key].shape
    assert (first["items"] != other["items"]).any()


@pytest.mark.parametrize("name", EVERY)
def test_rates_out_of_range_are_refused(batch, name):
    for rate in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"rate must lie in 0\.\.1.*got {rate}"):
            EVERY[name](batch, rng(), rate=rate)
