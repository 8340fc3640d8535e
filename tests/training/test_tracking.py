import sys
import time

import keras
import pytest

import tfrec_llm as tr

MEASURED = {"learning_rate", "behaviors_per_second", "padding", "memory_gb", "seconds"}

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorBoard's writer is TensorFlow's"
)


@pytest.fixture(scope="module")
def split():
    return tr.data.leave_last_out(tr.data.ShopSimulator(60, 20, seed=1).simulate())


def fit(split, **options):
    rec = tr.Recommender(emb_dim=8, num_layers=1, max_length=10, precision="float32")
    return rec.fit(split.train, validation=split.valid, epochs=2, verbose=0, **options)


def test_the_curve_tells_what_the_training_cost(split):
    curve = fit(split).curve
    for row in curve:
        assert row.keys() >= MEASURED
        assert row["learning_rate"] == pytest.approx(1e-3)
        assert 0.0 <= row["padding"] < 0.5
        assert row["memory_gb"] > 0.05
        # A user's last behaviour has none after it to be learned; of the others ten are read.
        lengths = split.train.to_pandas().groupby("user").size()
        read = row["behaviors_per_second"] * row["seconds"]
        assert read == pytest.approx((lengths - 1).clip(upper=10).sum())


def test_tensorboard_shows_every_epoch(split, tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="pip install 'tfrec-llm[tracking]'",
    )
    import tensorflow as tf

    curve = fit(split, tracking={"tensorboard": tmp_path}).curve

    def values(folder, name):
        found = event_accumulator.EventAccumulator(str(tmp_path / folder)).Reload()
        return [float(tf.make_ndarray(event.tensor_proto)) for event in found.Tensors(name)]

    assert values("validation", "epoch_ndcg@10") == pytest.approx(
        [row["val_ndcg@10"] for row in curve]
    )
    for name in MEASURED:
        assert values("train", f"epoch_{name}") == pytest.approx([row[name] for row in curve])


def test_mlflow_keeps_the_setting_and_every_epoch(split, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'tfrec-llm[tracking]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    curve = fit(split, tracking={"mlflow": tmp_path}).curve
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("tfrec_llm").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert run.data.params["emb_dim"] == "8"
    kept = client.get_metric_history(run.info.run_id, "val_ndcg_at_10")
    assert [each.value for each in sorted(kept, key=lambda each: each.step)] == pytest.approx(
        [row["val_ndcg@10"] for row in curve]
    )
    assert run.data.metrics.keys() >= MEASURED

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="the power went"):
        fit(split, tracking={"mlflow": tmp_path}, callbacks=[Stop()])
    assert sorted(each.info.status for each in client.search_runs([experiment])) == [
        "FAILED",
        "FINISHED",
    ]
    assert mlflow.active_run() is None


def test_weights_and_biases_records_offline_without_an_account(split, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install 'tfrec-llm[tracking]'")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    curve = fit(split, tracking={"wandb": tmp_path}).curve
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    # Its process writes the file to the end by itself.
    wanted = [b"epoch/val_ndcg@10", repr(curve[-1]["val_ndcg@10"]).encode()]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not all(each in record.read_bytes() for each in wanted):
        time.sleep(0.1)
    assert [each for each in wanted if each not in record.read_bytes()] == []


def test_the_first_of_several_workers_records_alone(split, tmp_path, monkeypatch):
    monkeypatch.setattr("tfrec_llm.recommender_training.is_first_worker", lambda model: False)
    fit(split, tracking={"tensorboard": tmp_path})
    assert not any(tmp_path.iterdir())


def test_unknown_and_missing_tools_are_told_before_the_training(split, monkeypatch):
    with pytest.raises(ValueError, match="got 'tensorbord'"):
        fit(split, tracking="tensorbord")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r"tfrec-llm\[tracking\]"):
        fit(split, tracking="mlflow")
