"""The benchmark of the training step tells where its time goes."""

from pathlib import Path

import pytest
import tensorflow as tf

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"

pytestmark = pytest.mark.skipif(not SPEED.exists(), reason="benchmarks/ is not beside the tests")


def test_the_time_of_operations_is_told_by_what_they_do(scripts_in, tmp_path):
    step = scripts_in("speed")("training_step")
    matrix = tf.random.normal((500, 500))

    @tf.function
    def power(matrix):
        for _ in range(5):
            matrix = tf.matmul(matrix, matrix)
        return tf.nn.softmax(matrix[:2])

    power(matrix)
    with tf.profiler.experimental.Profile(str(tmp_path)):
        power(matrix)
    seconds = step.seconds_by_kind(tmp_path)
    assert seconds["matrix products"] > 0.5 * sum(seconds.values())
    assert seconds["softmax"] > 0
    assert step.kind_of("UnsortedSegmentSum") == "rows of tables"
