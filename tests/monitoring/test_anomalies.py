import numpy as np

from tfrec_llm.monitoring import find_anomalies
from tfrec_llm.monitoring.anomalies import usual

HOURS = np.arange(24 * 10)
TIMES = HOURS * 3_600_000_000


def traffic(seed=0):
    """Counts of ten days, many by day and few by night."""
    rates = 200 + 180 * np.sin(2 * np.pi * HOURS / 24)
    return np.random.default_rng(seed).poisson(rates).astype(float)


def found(values):
    anomalies = find_anomalies("lists", TIMES, values, season=24, chance=np.sqrt, limit=6.0)
    return [int(one.time // 3_600_000_000) for one in anomalies]


def test_nights_are_no_anomaly_and_an_outage_is():
    assert all(found(traffic(seed)) == [] for seed in range(5))
    values = traffic()
    values[200:202] = 0  # at the height of the day
    assert found(values) == [200, 201]
    assert found(np.append(traffic()[:-1], 2000.0)) == [len(HOURS) - 1]


def test_an_anomaly_does_not_hide_the_next_one():
    values = traffic()
    values[[150, 174]] = 3000  # at the same hour of two days
    assert found(values) == [150, 174]


def test_what_was_not_measured_is_neither_compared_nor_reported():
    values = traffic()
    values[::3] = np.nan
    assert found(values) == []
    expected, scatter = usual(np.full(20, np.nan), season=4)
    assert np.isnan(expected).all()
    assert np.isnan(scatter).all()
    assert find_anomalies("x", TIMES[:0], np.zeros(0), season=4, chance=np.sqrt, limit=3) == []
