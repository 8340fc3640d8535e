import pytest

from tfrec_llm.layers import ItemContents


def test_pairs_outside_the_indexes_are_refused():
    with pytest.raises(ValueError, match=r"items lie in 3\.\.10, not in 0\.\.9"):
        ItemContents(2, 10, candidates=[0, 1], items=[3, 10])
    with pytest.raises(ValueError, match="as long as one another"):
        ItemContents(2, 10, candidates=[0, 1], items=[3])
