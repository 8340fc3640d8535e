import keras
import numpy as np
import pytest

from tfrec_llm.optimizers import LazyAdam
from tfrec_llm.training.optimizer_state import optimizer_state, restore_optimizer


@pytest.mark.parametrize("make", [keras.optimizers.Adam, keras.optimizers.AdamW, LazyAdam])
def test_training_goes_on_as_if_it_had_not_ended(make):
    start, gradients = np.ones((3, 2), np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    whole = keras.Variable(start)
    optimizer = make(0.1)
    for _ in range(4):
        optimizer.apply([keras.ops.array(gradients)], [whole])
    cut = keras.Variable(start)
    first, second = make(0.1), make(0.1)
    for _ in range(2):
        first.apply([keras.ops.array(gradients)], [cut])
    assert restore_optimizer(second, optimizer_state(first), [cut])
    for _ in range(2):
        second.apply([keras.ops.array(gradients)], [cut])
    np.testing.assert_allclose(cut.numpy(), whole.numpy(), rtol=1e-6)


def test_a_new_learning_rate_is_kept_and_what_does_not_fit_is_left():
    table = keras.Variable(np.ones((3, 2)))
    old, new = keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.02)
    old.apply([keras.ops.ones((3, 2))], [table])
    state = optimizer_state(old)
    assert restore_optimizer(new, state, [table])
    assert float(new.learning_rate) == pytest.approx(0.02)
    for shape in [(2, 2), (3, 3), (3,)]:
        other = keras.optimizers.Adam()
        assert not restore_optimizer(other, state, [keras.Variable(np.ones(shape))])
        assert int(other.iterations) == 0
