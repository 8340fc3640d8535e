import numpy as np
import pytest

from tfrec_llm.errors import SavedModelError
from tfrec_llm.serving import ApproximateIndex, ExactIndex

DIM = 16


def exact():
    return ExactIndex(DIM)


def approximate():
    return ApproximateIndex(DIM, probes=12)


def everything():
    """An approximate index that reads all its lists, so that it must be exact."""
    return ApproximateIndex(DIM, num_lists=10, probes=10)


def codes():
    return ApproximateIndex(DIM, num_lists=10, probes=10, num_codes=16)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(30, DIM))
    vectors = centers[rng.integers(30, size=1500)] + 0.5 * rng.normal(size=(1500, DIM))
    queries = centers[rng.integers(30, size=20)] + 0.5 * rng.normal(size=(20, DIM))
    return 2 * np.arange(1500), vectors.astype(np.float32), queries.astype(np.float32)


def best(items, vectors, queries, k):
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return items[order], np.take_along_axis(scores, order, axis=1)


def filled(make, data):
    index = make()
    index.add(data[0], data[1])
    return index


@pytest.mark.parametrize("make", [exact, everything])
def test_the_items_with_the_greatest_products_are_found(make, data):
    items, vectors, queries = data
    found = filled(make, data).search(queries, 10)
    expected, scores = best(items, vectors, queries, 10)
    assert found.items.tolist() == expected.tolist()
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)


@pytest.mark.parametrize(("make", "least"), [(approximate, 0.9), (codes, 0.6)])
def test_approximate_search_finds_most_of_them(make, least, data):
    items, vectors, queries = data
    found = filled(make, data).search(queries, 10)
    expected, _ = best(items, vectors, queries, 10)
    recall = np.mean(
        [np.isin(own, all).mean() for own, all in zip(found.items, expected, strict=True)]
    )
    assert recall >= least


@pytest.mark.parametrize("make", [exact, everything])
def test_items_come_and_go_without_a_rebuild(make, data):
    items, vectors, queries = data
    index = make()
    index.add(items[:1000], vectors[:1000])
    index.add(items[1000:], vectors[1000:])
    assert index.remove(items[::3]) == 500
    assert index.remove(items[::3]) == 0
    kept = np.arange(1500) % 3 > 0
    assert len(index) == 1000
    found = index.search(queries, 10)
    assert found.items.tolist() == best(items[kept], vectors[kept], queries, 10)[0].tolist()
    index.add(items[1:2], 100 * queries[:1])
    assert len(index) == 1000
    assert index.search(queries[:1], 1).items.tolist() == [[2]]
    index.add(items[::3], vectors[::3])
    changed = vectors.copy()
    changed[1] = 100 * queries[0]
    assert index.search(queries, 5).items.tolist() == best(items, changed, queries, 5)[0].tolist()


@pytest.mark.parametrize("make", [exact, approximate, everything])
def test_only_what_may_be_is_found(make, data):
    items, vectors, queries = data
    index = filled(make, data)
    few = items[5:60:2]
    found = index.search(queries, 10, only=np.append(few[::-1], 99_999))
    expected = best(few, vectors[5:60:2], queries, 10)[0]
    assert found.items.tolist() == expected.tolist()
    first = index.search(queries, 3).items
    later = index.search(queries, 5, without=list(first))
    assert not any(np.isin(own, gone).any() for own, gone in zip(later.items, first, strict=True))
    whole = index.search(queries, 8).items
    assert later.items.tolist() == whole[:, 3:].tolist()
    none = index.search(queries[:1], 4, only=few[:3], without=[few[:2]])
    assert none.items.tolist() == [[few[2], -1, -1, -1]]
    assert none.scores[0, 1:].tolist() == [-np.inf] * 3


@pytest.mark.parametrize("make", [exact, approximate, codes])
def test_a_saved_index_finds_the_same(make, data, tmp_path):
    items, vectors, queries = data
    index = filled(make, data)
    index.save(tmp_path / "index")
    loaded = type(index).load(tmp_path / "index")
    assert loaded.search(queries, 9).items.tolist() == index.search(queries, 9).items.tolist()
    loaded.remove(items[:700])
    loaded.add(items[:1], vectors[:1])
    assert len(loaded) == 801
    (tmp_path / "index").write_bytes(b"{}\nsomething else")
    with pytest.raises(SavedModelError, match="holds no index"):
        type(index).load(tmp_path / "index")


@pytest.mark.parametrize("make", [exact, approximate])
def test_an_empty_index_finds_nothing(make, data):
    index = make()
    found = index.search(data[2], 3)
    assert (found.items == -1).all()
    assert len(index) == 0
    index.add(np.array([4]), data[1][:1])
    assert index.search(data[2][:1], 3).items.tolist() == [[4, -1, -1]]
    small = ApproximateIndex(DIM, num_lists=8, probes=1)
    small.add(np.arange(20), data[1][:20])
    assert sorted(small.search(data[2][:1], 25).items[0].tolist()) == [-1] * 5 + [*range(20)]


def test_wrong_input_is_told():
    index = ExactIndex(4)
    with pytest.raises(ValueError, match="need vectors of shape"):
        index.add(np.arange(2), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="each once"):
        index.add(np.array([1, 1]), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="not finite"):
        index.add(np.array([1]), np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match="queries have the shape"):
        index.search(np.zeros((1, 3)), 1)
    with pytest.raises(ValueError, match="k must be"):
        index.search(np.zeros((1, 4)), 0)
    with pytest.raises(ValueError, match="does not divide"):
        ApproximateIndex(16, num_codes=5)
