import pytest

from tfrec_llm.evaluation.curve import plot_curve


@pytest.mark.parametrize(("epochs", "marker"), [(1, "o"), (3, "")])
def test_a_curve_of_a_single_epoch_is_seen_too(epochs, marker):
    curve = [{"epoch": epoch, "loss": 4.0, "val_ndcg@10": 0.1} for epoch in range(epochs)]
    lines = [line for axes in plot_curve(curve).axes for line in axes.get_lines()]
    assert [line.get_label() for line in lines] == ["loss", "ndcg@10"]
    assert [line.get_marker() for line in lines] == [marker, marker]
