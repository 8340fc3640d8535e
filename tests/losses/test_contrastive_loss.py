import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.losses import ContrastiveLoss


def plain(ids, vectors, temperature, weights=None):
    """The loss by a loop over vectors."""
    ids, vectors = ids.ravel(), vectors.reshape(-1, vectors.shape[-1])
    weights = np.ones(len(ids)) if weights is None else weights.ravel()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T / temperature
    total = weight = 0.0
    for one, own in enumerate(ids):
        others = [n for n in range(len(ids)) if n != one and ids[n] > 0]
        views = [n for n in others if ids[n] == own]
        if own and views:
            normal = np.log(np.exp(scores[one, others]).sum())
            total += weights[one] * np.mean([normal - scores[one, view] for view in views])
            weight += weights[one]
    return total / weight


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    ids = np.array([[1, 2, 0], [1, 2, 0], [3, 4, 5], [3, 4, 6]])
    return ids, rng.normal(size=(4, 3, 5)).astype("float32")


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrastive_loss_is_the_plain_sum_over_views(batch, temperature):
    ids, vectors = batch
    loss = ContrastiveLoss(temperature=temperature)
    assert float(loss(ids, vectors)) == pytest.approx(plain(ids, vectors, temperature), rel=1e-5)
    weights = np.arange(12.0).reshape(4, 3)
    assert float(loss(ids, vectors, weights)) == pytest.approx(
        plain(ids, vectors, temperature, weights), rel=1e-5
    )


def test_three_views_of_one_thing_look_for_each_other(batch):
    _, vectors = batch
    ids = np.repeat([1, 2, 3, 4], 3).reshape(4, 3)
    found = float(ContrastiveLoss()(ids, vectors))
    assert found == pytest.approx(plain(ids, vectors, 0.1), rel=1e-5)


def test_what_has_id_0_changes_nothing_and_nothing_gives_0(batch):
    ids, vectors = batch
    loss = ContrastiveLoss()
    changed = np.where(ids[..., None] == 0, 7.0 * vectors + 1.0, vectors)
    assert float(loss(ids, changed)) == pytest.approx(float(loss(ids, vectors)), rel=1e-6)
    assert float(loss(0 * ids, vectors)) == 0.0


def test_half_precision_and_the_length_of_vectors_do_not_matter_much(batch):
    ids, vectors = batch
    loss = ContrastiveLoss()
    exact = float(loss(ids, vectors))
    assert float(loss(ids, 100.0 * vectors)) == pytest.approx(exact, rel=1e-5)
    half = ops.cast(vectors, "bfloat16")
    assert keras.backend.standardize_dtype(loss(ids, half).dtype) == "float32"
    assert float(loss(ids, half)) == pytest.approx(exact, rel=0.05)


def test_its_config_makes_an_equal_loss():
    again = ContrastiveLoss.from_config(ContrastiveLoss(temperature=0.3).get_config())
    assert again.temperature == 0.3
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        ContrastiveLoss(temperature=0)
