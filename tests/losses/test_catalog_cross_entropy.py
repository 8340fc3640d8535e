import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops

from tfrec_llm.losses import CatalogCrossEntropy

POSITIONS, ITEMS, WIDTH = 23, 40, 6


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(POSITIONS, WIDTH)).astype("float32")
    table = rng.normal(size=(ITEMS, WIDTH)).astype("float32")
    targets = rng.integers(3, ITEMS, POSITIONS)
    weights = rng.random(POSITIONS) * (rng.random(POSITIONS) < 0.7)
    return targets, hidden, table, weights


def plain(targets, hidden, table, weights=None, first_item=0):
    """The loss and its gradients with all logits at once, in float64."""
    hidden, table = hidden.astype("float64"), table.astype("float64")
    weights = np.ones(len(hidden)) if weights is None else weights
    share = weights / weights.sum()
    logits = hidden @ table.T
    logits[:, :first_item] = -np.inf
    highest = logits.max(-1, keepdims=True)
    total = np.exp(logits - highest).sum(-1, keepdims=True)
    log_p = logits - highest - np.log(total)
    rows = np.arange(len(hidden))
    slope = np.exp(log_p)
    slope[rows, targets] -= 1
    slope *= share[:, None]
    return -(share * log_p[rows, targets]).sum(), [slope @ table, slope.T @ hidden]


def assert_same(found, expected, atol=1e-5):
    np.testing.assert_allclose(found[0], expected[0], atol=atol)
    for gradient, wanted in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=atol)


@pytest.mark.parametrize("first_item", [0, 3])
@pytest.mark.parametrize("chunk_size", [1, 5, 8, 23, 1024])
def test_chunks_give_the_value_and_gradients_of_the_plain_loss(chunk_size, first_item, case):
    targets, hidden, table, weights = case
    loss = CatalogCrossEntropy(chunk_size=chunk_size)
    for given in (None, weights):

        def chunked(hidden, table, given=given):
            return loss(targets, hidden, table, given, first_item=first_item)

        expected = plain(targets, hidden, table, given, first_item)
        assert_same(value_and_gradients(chunked, hidden, table), expected)


@pytest.mark.parametrize("num_chunks", [1, 8, 25])
def test_a_graph_that_does_not_know_the_number_of_positions_gives_the_same(num_chunks, case):
    targets, hidden, table, weights = case
    loss = CatalogCrossEntropy(num_chunks=num_chunks)
    # Fewer positions than chunks, too.
    for count in (POSITIONS, 3):
        chosen = targets[:count], hidden[:count], weights[:count]

        def chunked(hidden, chosen=chosen):
            return loss(chosen[0], hidden, table, chosen[2], first_item=3)

        found = value_and_gradients(chunked, chosen[1], compiled=True)
        value, gradients = plain(chosen[0], chosen[1], table, chosen[2], 3)
        assert_same(found, (value, gradients[:1]))


def test_positions_may_have_rows(case):
    targets, hidden, table, weights = case
    loss = CatalogCrossEntropy(chunk_size=4)
    rows = [values[:20].reshape(4, 5, *values.shape[1:]) for values in (targets, hidden, weights)]
    found = loss(rows[0], rows[1], table, rows[2])
    np.testing.assert_allclose(
        found, plain(targets[:20], hidden[:20], table, weights[:20])[0], atol=1e-5
    )


def test_a_table_that_is_also_the_input_gets_both_gradients(case):
    targets, _, table, weights = case
    read = np.random.default_rng(1).integers(0, ITEMS, POSITIONS)

    def tied(loss):
        return lambda table: loss(ops.tanh(ops.take(table, read, axis=0)), table)

    def all_at_once(hidden, table):
        log_p = ops.log_softmax(ops.matmul(hidden, ops.transpose(table)), axis=-1)
        hit = ops.take_along_axis(log_p, targets[:, None], axis=-1)[:, 0]
        share = ops.convert_to_tensor((weights / weights.sum()).astype("float32"))
        return -ops.sum(share * hit)

    chunked = CatalogCrossEntropy(chunk_size=6)
    found = value_and_gradients(tied(lambda h, t: chunked(targets, h, t, weights)), table)
    assert_same(found, value_and_gradients(tied(all_at_once), table))


def test_what_is_done_to_the_loss_is_done_to_its_gradients(case):
    targets, hidden, table, _ = case
    loss = CatalogCrossEntropy(chunk_size=6)
    value, gradients = value_and_gradients(lambda h, t: 8.0 * loss(targets, h, t), hidden, table)
    expected = plain(targets, hidden, table)
    assert_same((value / 8, [gradient / 8 for gradient in gradients]), expected)


def test_bfloat16_states_give_nearly_the_same(case):
    targets, hidden, table, weights = case
    loss = CatalogCrossEntropy(chunk_size=6)
    half = ops.cast(hidden, "bfloat16")
    value, (hidden_gradient, table_gradient) = value_and_gradients(
        lambda h, t: loss(targets, h, t, weights), half, table
    )
    rounded = ops.convert_to_numpy(ops.cast(half, "float32"))
    wanted, gradients = plain(targets, rounded, table, weights)
    assert value == pytest.approx(wanted, rel=0.01)
    for gradient, expected in zip((hidden_gradient, table_gradient), gradients, strict=True):
        assert np.abs(gradient - expected).max() < 0.02 * np.abs(expected).max()


def test_positions_that_weigh_nothing_change_nothing_whatever_they_hold(case):
    targets, hidden, table, weights = case
    empty = weights == 0
    loss = CatalogCrossEntropy(chunk_size=6)

    def weighted(targets, hidden):
        return value_and_gradients(
            lambda h, t: loss(targets, h, t, weights, first_item=3), hidden, table
        )

    changed_targets, changed_hidden = targets.copy(), hidden.copy()
    # Padding is the target of a place without one.
    changed_targets[empty] = 0
    changed_hidden[empty] *= 50
    value, (hidden_gradient, table_gradient) = weighted(targets, hidden)
    other, (other_hidden, other_table) = weighted(changed_targets, changed_hidden)
    assert value == pytest.approx(other, abs=1e-6)
    assert (other_hidden[empty] == 0).all()
    np.testing.assert_allclose(hidden_gradient, other_hidden, atol=1e-6)
    np.testing.assert_allclose(table_gradient, other_table, atol=1e-6)


def test_no_weight_at_all_gives_zero_and_no_nan(case):
    targets, hidden, table, _ = case
    value, gradients = value_and_gradients(
        lambda h, t: CatalogCrossEntropy()(targets, h, t, np.zeros(POSITIONS)), hidden, table
    )
    assert value == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_large_logits_do_not_overflow(case):
    targets, hidden, table, _ = case
    expected = plain(targets, hidden * 300, table)
    found = value_and_gradients(
        lambda h, t: CatalogCrossEntropy(chunk_size=6)(targets, h, t), hidden * 300, table
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1][0], expected[1][0], atol=1e-4)


def test_a_variable_is_a_table_as_good_as_a_tensor(case):
    targets, hidden, table, _ = case
    value = CatalogCrossEntropy()(targets, hidden, keras.Variable(table))
    np.testing.assert_allclose(value, plain(targets, hidden, table)[0], atol=1e-5)


def test_the_configuration_makes_the_round_trip():
    loss = CatalogCrossEntropy(chunk_size=7, num_chunks=3)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    with pytest.raises(ValueError, match="must be positive, got 0 and 16"):
        CatalogCrossEntropy(chunk_size=0)


PEAK = """
import resource, sys
sys.path.insert(0, {tests!r})
import keras, numpy as np
from gradients import value_and_gradients
from tfrec_llm.losses import CatalogCrossEntropy
rng = np.random.default_rng(0)
targets, table = rng.integers(0, 20000, 8192), rng.normal(size=(20000, 8)).astype("float32")
hidden = rng.normal(size=(8192, 8)).astype("float32")
loss = CatalogCrossEntropy(chunk_size=256, num_chunks=32)
def run(rows):
    chosen = targets[:rows]
    value_and_gradients(lambda h: loss(chosen, h, table), hidden[:rows], compiled={compiled})
run(32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(8192)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_logits_of_all_positions_are_never_in_memory_together(compiled):
    script = PEAK.format(tests=os.path.dirname(os.path.dirname(__file__)), compiled=compiled)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout.split()[-1]) * 1024
    assert grown < 8192 * 20000 * 4 / 3
