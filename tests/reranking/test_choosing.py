import numpy as np
import pytest

from tfrec_llm.reranking import choosing
from tfrec_llm.reranking.choosing import choose
from tfrec_llm.reranking.likeness import Cosine, SameValue
from tfrec_llm.reranking.shortlists import Shortlists

ITEMS = 30
KIND = np.random.default_rng(1).integers(-1, 4, ITEMS)
BRAND = np.random.default_rng(2).integers(-1, 3, ITEMS)
VECTORS = np.random.default_rng(3).normal(size=(ITEMS, 4)).astype(np.float32)
QUOTAS = [(SameValue(KIND), 2), (SameValue(BRAND), 3)]
COSINE = Cosine(VECTORS.__getitem__, 4)


def lists(seed=0, users=50, places=12):
    """Candidates of up to `places` a user, with scores that often tie."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(ITEMS)[:places] for _ in range(users)])
    scores = rng.integers(0, 6, items.shape).astype(np.float32) / 10
    empty = np.arange(places) >= rng.integers(0, places + 1, users)[:, None]
    return Shortlists(np.where(empty, -1, items), np.where(empty, -np.inf, scores))


def cosine(one, other):
    one, other = VECTORS[one].astype(float), VECTORS[other].astype(float)
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def slowly(items, scores, k, quotas, diversity, alike):
    """One user's list, chosen in plain loops."""
    pairs = [(i, float(s)) for i, s in zip(items.tolist(), scores, strict=True) if i >= 0]
    pairs.sort(key=lambda pair: -pair[1])
    if not pairs:
        return []
    least, most = pairs[-1][1], pairs[0][1]
    chosen = []
    while pairs and len(chosen) < k:
        best, best_gain = None, -np.inf
        for item, score in pairs:
            used_up = [
                sum(codes[item] >= 0 and codes[other] == codes[item] for other in chosen) >= limit
                for codes, limit in quotas
            ]
            if any(used_up):
                continue
            gain = (score - least) / (most - least) if most > least else 0.0
            if chosen:
                gain = (1 - diversity) * gain - diversity * max(alike(item, o) for o in chosen)
            if gain > best_gain + 1e-9:
                best, best_gain = item, gain
        if best is None:
            break
        chosen.append(best)
        pairs = [pair for pair in pairs if pair[0] != best]
    return chosen


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("with_quotas", [False, True])
def test_lists_are_those_of_plain_loops(diversity, with_quotas, monkeypatch):
    monkeypatch.setattr(choosing, "_NUMBERS_AT_ONCE", 12 * 4 * 7)  # seven users at a time
    candidates = lists()
    quotas = QUOTAS if with_quotas else []
    codes = [(KIND, 2), (BRAND, 3)] if with_quotas else []
    found = choose(candidates, 6, quotas=quotas, diversity=diversity, likeness=COSINE)
    for row in range(len(candidates.items)):
        items, scores = candidates.items[row], candidates.scores[row]
        expected = slowly(items, scores, 6, codes, diversity, cosine)
        assert found.items[row].tolist() == expected + [-1] * (6 - len(expected))
        of_item = dict(zip(items.tolist(), scores.tolist(), strict=True))
        listed = found.items[row] >= 0
        assert found.scores[row][listed].tolist() == [of_item[item] for item in expected]
        assert (found.scores[row][~listed] == -np.inf).all()


def test_the_places_of_nobody_are_none():
    nobody = Shortlists(np.zeros((0, 5), np.int64), np.zeros((0, 5), np.float32))
    assert choose(nobody, 3, quotas=QUOTAS, diversity=0.5, likeness=COSINE).items.shape == (0, 3)
    nothing = Shortlists(np.full((2, 5), -1), np.full((2, 5), -np.inf, np.float32))
    found = choose(nothing, 9, quotas=QUOTAS, diversity=0.5, likeness=COSINE)
    assert (found.items == -1).all()
    assert found.items.shape == (2, 5)


def test_more_diversity_makes_lists_less_alike():
    candidates = lists(users=100, places=20)
    kept = (candidates.items >= 0).all(axis=1) | (np.sum(candidates.items >= 0, axis=1) > 8)
    candidates = Shortlists(candidates.items[kept], candidates.scores[kept])

    def alike(diversity):
        found = choose(candidates, 6, diversity=diversity, likeness=COSINE).items
        pairs = [cosine(a, b) for row in found for a in row for b in row if a < b]
        return np.mean(pairs)

    values = [alike(diversity) for diversity in (0.0, 0.3, 0.6, 1.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 0.1
