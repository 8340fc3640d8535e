import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import tfrec_llm as tr

pytest.importorskip("keras_tuner", reason="pip install 'tfrec-llm[tuning]'")

SMALL = {"emb_dim": 8, "num_layers": 1, "max_length": 10, "precision": "float32"}


def space(hp):
    return {"dropout": hp.Choice("dropout", [0.1, 0.2, 0.3, 0.4, 0.5], default=0.3)}


def failing_space(hp):
    return {"num_heads": hp.Choice("num_heads", [2, 3], default=2)}


def shop_split():
    return tr.data.leave_last_out(tr.data.ShopSimulator(60, 20, seed=1).simulate())


@pytest.fixture(scope="module")
def split():
    return shop_split()


def tuner(folder, of=space, **options):
    options = {"method": "random", "max_trials": 2, "epochs": 2, "fixed": SMALL} | options
    return tr.tuning.RecommenderTuner(of, directory=folder, **options)


@pytest.fixture(scope="module")
def searched(split, tmp_path_factory):
    done = tuner(tmp_path_factory.mktemp("searched"))
    done.search(split.train, validation=split.valid, verbose=0)
    return done


def test_the_first_trial_is_the_defaults_and_the_best_one_stands_first(searched):
    table = searched.results.table
    assert set(table["trial"]) == {"0", "1"}
    assert table.set_index("trial").loc["0", "dropout"] == 0.3
    assert table["dropout"].nunique() == 2
    assert table["score"].is_monotonic_decreasing
    assert (table["status"] == "done").all()
    assert (table["epochs"] == 2).all()


def test_the_best_recommender_reaches_its_trials_score(searched, split):
    results = searched.results
    best = results.best_recommender()
    best.histories = best.sequences(split.train)
    score = best.evaluate(split.valid, k=10)["ndcg@10"]
    assert score == pytest.approx(results.table["score"][0], abs=1e-6)
    # One model is kept, that of the best trial.
    assert len(list(results.folder.glob("trial_*/model.tfrec"))) == 1


def test_the_best_setting_makes_an_equal_recommender_with_one_call(searched, split):
    results = searched.results
    again = tr.Recommender.from_config(results.best_setting)
    again.fit(split.train, validation=split.valid, epochs=2, verbose=0)
    assert max(row["val_ndcg@10"] for row in again.curve) == results.table["score"][0]


def test_a_search_with_the_same_call_is_not_run_again(searched, split):
    before = searched.results.table
    again = tuner(searched.directory)
    again.search(split.train, validation=split.valid, verbose=0)
    assert again.results.table.equals(before)


def test_the_picture_has_an_axis_for_what_was_chosen_and_the_score(searched, tmp_path):
    figure = searched.results.plot(tmp_path / "trials.png")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["dropout", "score"]
    assert (tmp_path / "trials.png").stat().st_size > 1000


class _Kill(keras.callbacks.Callback):
    """Ends the training as Ctrl-C would, in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_killed_search_goes_on_where_it_was_and_ends_as_if_undisturbed(searched, split, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tuner(tmp_path).search(split.train, validation=split.valid, callbacks=[_Kill()], verbose=0)
    killed = tuner(tmp_path)
    assert list(killed.results.table["status"]) == ["running"]
    killed.search(split.train, validation=split.valid, verbose=0)
    found, expected = killed.results.table, searched.results.table
    for column in ("trial", "score", "dropout", "epochs"):
        assert list(found[column]) == list(expected[column])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
def test_trials_train_under_a_strategy(split, tmp_path):
    strategy = tr.training.distribution_strategy("mirrored")
    trained = []

    class Strategies(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            trained.append(self.model.distribute_strategy)

        def __deepcopy__(self, memo):
            return self

    searching = tuner(tmp_path, max_trials=1, epochs=1)
    searching.search(
        split.train,
        validation=split.valid,
        strategy=strategy,
        callbacks=[Strategies()],
        verbose=0,
    )
    assert list(searching.results.table["status"]) == ["done"]
    assert trained == [strategy]


def test_hyperband_trains_the_best_longer(split, tmp_path):
    searching = tuner(tmp_path, method="hyperband", factor=2)
    searching.search(split.train, validation=split.valid, verbose=0)
    table = searching.results.table
    assert set(table["epochs"]) == {1, 2}
    promoted = table[table["tuner/initial_epoch"] == 1]
    assert len(promoted)
    short = table.set_index("trial").loc[promoted["tuner/trial_id"]]
    assert list(short["dropout"]) == list(promoted["dropout"])


def test_failed_trials_say_why_and_the_others_go_on(split, tmp_path):
    # A width of 8 cannot be shared out to three heads.
    searching = tuner(tmp_path, failing_space)
    searching.search(split.train, validation=split.valid, verbose=0)
    table = searching.results.table.set_index("num_heads")
    assert dict(table["status"]) == {2: "done", 3: "failed"}
    (failure,) = searching.results.failures.values()
    assert "num_heads" in failure.splitlines()[-1]


def test_unusable_data_end_a_search_at_once(split, tmp_path):
    with pytest.raises(ValueError, match="that a target needs"):
        tuner(tmp_path).search(split.train.take(np.array([], int)), validation=split.valid)


def test_unknown_methods_and_empty_searches_are_told(tmp_path):
    with pytest.raises(ValueError, match="random, bayesian or hyperband"):
        tuner(tmp_path, method="grid")
    results = tuner(tmp_path).results
    assert len(results) == 0
    assert results.table.empty
    for wanted in (lambda: results.best_setting, results.best_recommender, results.plot):
        with pytest.raises(tr.errors.NotFittedError, match="has ended"):
            wanted()
    with pytest.raises(tr.errors.DataFileError, match="no search"):
        tr.tuning.Trials(tmp_path / "nowhere")


WORKER = """
from test_recommender_tuner import shop_split, tuner
split = shop_split()
tuner({folder!r}).search(split.train, validation=split.valid, verbose=0)
"""


def test_two_workers_share_the_trials_of_a_chief(searched, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    for name, value in shared.items():
        monkeypatch.setenv(name, value)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER.format(folder=str(tmp_path))],
            env=os.environ | {"KERASTUNER_TUNER_ID": f"worker{number}"},
            cwd=Path(__file__).parent,
            stdout=subprocess.DEVNULL,
        )
        for number in range(2)
    ]
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    chief = tuner(tmp_path)
    serving = threading.Thread(target=chief.search, daemon=True)
    serving.start()
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    serving.join(timeout=60)
    assert not serving.is_alive()
    found = chief.results.table.set_index("trial")["score"]
    assert dict(found) == dict(searched.results.table.set_index("trial")["score"])
