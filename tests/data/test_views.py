import numpy as np
import pytest

from tfrec_llm.data import TwoViews, UserSequences, contrastive_batches
from tfrec_llm.data.vocabulary import MASK


@pytest.fixture(scope="module")
def sequences():
    """Histories of different items, so that each item tells its history."""
    lengths = np.random.default_rng(0).integers(1, 12, 80)
    items = np.arange(3, 3 + lengths.sum()).astype("int32")
    return UserSequences(items, np.append(0, np.cumsum(lengths)), behaviors=1 + items % 3)


def views_of(batches, index=0):
    """(history, first view, second view, target) of every history; views of items and kinds."""
    inputs, targets = batches[index]
    owner = np.repeat(np.arange(len(batches.sequences)), batches.sequences.lengths)
    found = []
    for row in range(0, len(targets), 2):
        np.testing.assert_array_equal(targets[row], targets[row + 1])
        for segment in range(1, inputs["segments"][row].max() + 1):
            views, owners = [], set()
            for side in range(2):
                inside = inputs["segments"][row + side] == segment
                items = inputs["items"][row + side][inside]
                kinds = inputs["behaviors"][row + side][inside]
                positions = inputs["positions"][row + side][inside]
                assert positions.tolist() == list(range(len(items)))[::-1]
                place = inputs["target_positions"][row + side, segment - 1]
                assert inside[place]
                assert inputs["positions"][row + side, place] == 0
                shown = items != MASK
                assert (kinds[shown] == 1 + (items[shown] % 3)).all()
                assert not kinds[~shown].any()
                owners |= set(owner[items[shown] - 3])
                views.append(items.tolist())
            assert len(owners) == 1
            history = batches.sequences[owners.pop()].tolist()
            found.append((history, *views, int(targets[row, segment - 1])))
    outside = inputs["segments"] == 0
    assert not inputs["items"][outside].any()
    assert not inputs["positions"][outside].any()
    return found


def kind_of(history, view):
    shown = [item for item in view if item != MASK]
    if view == history:
        return "whole"
    if len(shown) < len(view):
        assert [a for a, b in zip(history, view, strict=True) if b != MASK] == shown
        return "mask"
    if len(view) < len(history):
        begin = history.index(view[0])
        assert history[begin : begin + len(view)] == view
        return "crop"
    assert sorted(view) == history
    return "reorder"


def test_every_history_is_seen_twice_cropped_masked_or_reordered(sequences):
    batches = contrastive_batches(sequences, batch_size=4)
    found = [one for index in range(len(batches)) for one in views_of(batches, index)]
    assert sorted(history for history, *_ in found) == sorted(
        sequences[row].tolist() for row in range(len(sequences))
    )
    kinds = [kind_of(history, view) for history, *views, _ in found for view in views]
    counts = {kind: kinds.count(kind) for kind in ("crop", "mask", "reorder")}
    assert all(25 < count < 75 for count in counts.values()), counts
    for history, first, second, target in found:
        assert (target > 0) == (len(history) > 1)
        lengths = {len(history), max(1, int(0.6 * len(history) + 1e-9))}
        assert {len(first), len(second)} <= lengths
    assert any(first != second for _, first, second, _ in found)


def test_targets_number_the_histories_of_a_batch(sequences):
    batches = contrastive_batches(sequences, batch_size=4)
    for index in range(len(batches)):
        inputs, targets = batches[index]
        assert targets.shape == inputs["target_positions"].shape
        numbers, times = np.unique(targets[targets > 0], return_counts=True)
        assert len(numbers)
        assert (times == 2).all()


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"mask": None, "reorder": None}, {"crop"}),
        ({"crop": None, "reorder": None}, {"mask"}),
        ({"crop": None, "mask": None}, {"reorder"}),
        ({"crop": None, "mask": None, "reorder": None}, set()),
    ],
)
def test_only_the_ways_that_are_wanted_are_taken(options, kinds, sequences):
    batches = contrastive_batches(sequences, **options)
    found = {kind_of(history, view) for history, *views, _ in views_of(batches) for view in views}
    assert found <= kinds | {"whole"}
    assert kinds <= found


def test_views_are_drawn_anew_in_every_epoch_and_repeat_by_seed(sequences):
    first, again = (contrastive_batches(sequences, seed=5) for _ in range(2))
    assert views_of(first) == views_of(again)
    again.on_epoch_end()
    assert sorted(views_of(first)) != sorted(views_of(again))


def test_a_single_history_has_views_too():
    single = UserSequences(np.arange(3, 9, dtype="int32"), np.array([0, 6]))
    batches = contrastive_batches(single, batch_size=1)
    for epoch in range(5):
        batches.set_epoch(epoch)
        inputs, targets = batches[0]
        assert inputs["items"].shape[0] == 2
        assert targets.tolist() == [[1], [1]]


def test_histories_beyond_the_number_of_targets_have_none(sequences):
    batches = contrastive_batches(sequences)
    whole = batches.objective.max_histories
    assert whole == max(len(row) for row in batches[0][1])
    batches.objective = TwoViews(max_histories=2)
    inputs, targets = batches[0]
    assert targets.shape[1] == inputs["target_positions"].shape[1] == 2
    assert inputs["segments"].max() > 2


def test_shares_that_make_no_sense_are_told():
    for options in ({"crop": 0.0}, {"mask": 1.0}, {"reorder": -0.5}):
        with pytest.raises(ValueError, match="must lie between 0 and 1, or be None"):
            TwoViews(**options)
    with pytest.raises(ValueError, match="max_histories must be positive, got 0"):
        TwoViews(max_histories=0)
