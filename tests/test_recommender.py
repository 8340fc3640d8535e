import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pyarrow as pa
import pytest

import tfrec_llm as tr
from tfrec_llm.errors import (
    EmptyLogError,
    NotFittedError,
    NullValueError,
    SavedModelError,
    UnknownItemError,
    UnknownUserError,
)

SMALL = {"emb_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 20, "precision": "float32"}


@pytest.fixture(scope="module")
def split():
    return tr.data.leave_last_out(tr.data.ShopSimulator(120, 40, seed=3).simulate())


@pytest.fixture(scope="module", params=["next", "masked"])
def fitted(request, split):
    rec = tr.Recommender(request.param, **SMALL)
    return rec.fit(split.train, validation=split.valid, epochs=3, verbose=0)


def all_scores(rec, split):
    return rec.score(rec.sequences(split.test.history))


def test_a_trained_model_beats_chance_and_its_curve_is_kept(split):
    rec = tr.Recommender(**SMALL, learning_rate=5e-3)
    rec.fit(split.train, validation=split.valid, epochs=15, verbose=0)
    report = rec.evaluate(split.test, k=5, filter_seen=False)
    assert report["hr@5"] > 2 * 5 / 40
    assert rec.curve[-1]["loss"] < rec.curve[0]["loss"]
    assert {"epoch", "loss", "seconds", "val_hr@10", "val_ndcg@10"} <= set(rec.curve[0])


def _scores_after_an_epoch(split, **options):
    rec = tr.Recommender(**SMALL | {"batch_size": 1, "dropout": 0.0} | options)
    return all_scores(rec.fit(split.train, epochs=1, verbose=0), split)[:, 3:]


def test_accumulated_gradients_make_one_step_of_several_batches(split):
    # With more batches to a step than an epoch has, no step is taken at any rate.
    start = _scores_after_an_epoch(split, gradient_accumulation=10_000)
    again = _scores_after_an_epoch(split, gradient_accumulation=10_000, learning_rate=0.1)
    np.testing.assert_array_equal(start, again)
    assert np.abs(_scores_after_an_epoch(split, gradient_accumulation=4) - start).max() > 1e-4
    with pytest.raises(ValueError, match="1 or more"):
        tr.Recommender(gradient_accumulation=0)


def test_several_steps_a_call_give_the_same_scores(split):
    plain = _scores_after_an_epoch(split, batch_size=8)
    together = _scores_after_an_epoch(split, batch_size=8, steps_per_execution=4)
    np.testing.assert_allclose(together, plain, atol=1e-5)
    with pytest.raises(ValueError, match="steps_per_execution must be 1 or more"):
        tr.Recommender(steps_per_execution=0)


def test_steps_compiled_by_xla_give_the_same_scores(split):
    plain = _scores_after_an_epoch(split, batch_size=8)
    compiled = _scores_after_an_epoch(split, batch_size=8, jit_compile=True)
    np.testing.assert_allclose(compiled, plain, atol=1e-4)


def test_evaluate_predict_and_recommend_give_the_same_scores(fitted, split):
    users = split.test.user.to_pylist()
    sequences = fitted.sequences(split.test.history).select(users)
    scores = fitted.score(sequences)
    batches = tr.data.padded_batches(sequences, max_length=20, batch_size=50)
    predicted = np.asarray(fitted.model.predict(batches, verbose=0))
    np.testing.assert_allclose(predicted[:, 3:], scores[:, 3:], atol=1e-5)

    shown = fitted.recommend(users=users, k=40, filter_seen=False)
    row = {user: number for number, user in enumerate(users)}
    column = fitted.vocabulary.encode(shown["item"])
    np.testing.assert_allclose(
        shown["score"], scores[[row[user] for user in shown["user"]], column], atol=1e-5
    )
    targets = fitted.vocabulary.encode(split.test.item)
    own = scores[np.arange(len(users)), targets]
    ranks = (scores >= own[:, None]).sum(axis=1)
    report = fitted.evaluate(split.test, k=10, filter_seen=False)
    assert report["hr@10"] == pytest.approx((ranks <= 10).mean(), abs=0.01)


def test_another_process_loads_the_model_with_equal_scores(fitted, split, tmp_path):
    fitted.save(tmp_path / "shop.tfrec")
    split.test.history.to_parquet(tmp_path / "history.parquet")
    script = f"""
        import numpy as np, tfrec_llm as tr
        rec = tr.Recommender.load({str(tmp_path / "shop.tfrec")!r})
        log = tr.data.BehaviorLog.from_parquet({str(tmp_path / "history.parquet")!r})
        np.save({str(tmp_path / "scores.npy")!r}, rec.score(rec.sequences(log)))
        rec.recommend(k=3).to_json({str(tmp_path / "shown.json")!r})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), all_scores(fitted, split))
    shown = json.loads((tmp_path / "shown.json").read_text())
    assert list(shown["item"].values()) == fitted.recommend(k=3)["item"].to_list()


def test_seeded_fits_repeat_and_other_seeds_differ(split):
    def weights(seed):
        rec = tr.Recommender(**SMALL, seed=seed).fit(split.train, epochs=2, verbose=0)
        return np.concatenate([w.ravel() for w in rec.model.get_weights()])

    first = weights(1)
    np.testing.assert_array_equal(weights(1), first)
    assert np.abs(weights(2) - first).max() > 1e-3


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_interrupted_training_ends_as_if_undisturbed(split, tmp_path):
    def fit(**options):
        rec = tr.Recommender("masked", **SMALL)
        return rec.fit(
            split.train, validation=split.valid, epochs=5, patience=9, verbose=0, **options
        )

    undisturbed = fit()
    path = tmp_path / "training.npz"
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint=path, callbacks=[Stop()])
    assert path.exists()
    resumed = fit(checkpoint=path)
    assert not path.exists()
    for expected, found in zip(
        undisturbed.model.get_weights(), resumed.model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [row["epoch"] for row in resumed.curve] == [0, 1, 2, 3, 4]
    assert [row["loss"] for row in resumed.curve] == pytest.approx(
        [row["loss"] for row in undisturbed.curve], rel=1e-5
    )


def test_a_checkpoint_that_is_damaged_or_of_another_training_is_refused(split, tmp_path):
    path = tmp_path / "training.npz"
    with pytest.raises(KeyboardInterrupt):
        tr.Recommender(**SMALL).fit(
            split.train, epochs=5, verbose=0, checkpoint=path, callbacks=[Stop()]
        )
    with pytest.raises(SavedModelError, match=r"another training: .*seed"):
        tr.Recommender(**SMALL, seed=9).fit(split.train, epochs=5, verbose=0, checkpoint=path)
    for each in path.parent.iterdir():
        each.write_bytes(each.read_bytes()[:1000])
    with pytest.raises(SavedModelError, match="cannot be read"):
        tr.Recommender(**SMALL).fit(split.train, epochs=5, verbose=0, checkpoint=path)


def test_the_best_epoch_is_kept_and_training_stops_without_progress(split):
    rec = tr.Recommender(**SMALL, learning_rate=0.05)
    rec.fit(split.train, validation=split.valid, epochs=40, patience=2, verbose=0)
    values = [row["val_ndcg@10"] for row in rec.curve]
    assert len(values) == int(np.argmax(values)) + 3 < 40
    kept = rec.evaluate(split.valid, k=10, metrics=["ndcg"])["ndcg@10"]
    assert kept == pytest.approx(max(values), abs=1e-6)


def test_half_precision_training_gives_float32_scores_that_follow_it(split):
    rec = tr.Recommender(**SMALL | {"precision": "mixed_bfloat16"})
    rec.fit(split.train, validation=split.valid, epochs=3, verbose=0)
    assert rec.model.encoder.compute_dtype == "float32"
    best = max(row["val_ndcg@10"] for row in rec.curve)
    found = rec.evaluate(split.valid, k=10, metrics=["ndcg"])["ndcg@10"]
    assert found == pytest.approx(best, abs=1e-6)


def test_recommendations_respect_candidates_exclusions_and_what_was_seen(fitted, split):
    user = split.train.user[0].as_py()
    seen = set(fitted.vocabulary.decode(fitted.histories.select([user])[0]))
    everything = fitted.recommend(users=[user], k=999, filter_seen=False)
    assert len(everything) == len(fitted.vocabulary)
    assert not seen & set(fitted.recommend(users=[user], k=999)["item"])
    first, second = everything["item"][:2]
    left = fitted.recommend(users=[user], k=1, filter_seen=False, exclude=[first])
    assert left["item"].to_list() == [second]
    only = fitted.recommend(users=[user], k=9, filter_seen=False, candidates=[second, first])
    assert only["item"].to_list() == [first, second]


def test_unknown_users_and_items_raise_warn_or_are_left_out(fitted):
    known = fitted.vocabulary.ids[0].as_py()
    with pytest.raises(UnknownUserError, match="1 of 1 users"):
        fitted.recommend(users=[987654])
    with pytest.raises(UnknownItemError, match="1 of 2 items"):
        fitted.recommend(histories=[[known, 987654]])
    assert fitted.recommend(users=[987654], on_unknown="ignore").empty
    same = fitted.recommend(histories=[[known]], k=3)
    with pytest.warns(UserWarning, match="1 of 2 behaviours"):
        found = fitted.recommend(histories=[[known, 987654]], k=3, on_unknown="warn")
    assert found["item"].to_list() == same["item"].to_list()


def test_a_user_without_behaviours_gets_the_popular_items(fitted):
    found = fitted.recommend(histories=[[]], k=5)["item"].to_list()
    assert found == fitted.vocabulary.ids[:5].to_pylist()


def test_similar_items_are_the_nearest_vectors(fitted):
    items = fitted.vocabulary.ids[:2].to_pylist()
    found = fitted.similar_items(items, k=4)
    assert found["rank"].to_list() == [1, 2, 3, 4] * 2
    table = keras.ops.convert_to_numpy(fitted.model.table)
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosine = unit[3:] @ unit[3]
    cosine[0] = -1
    assert found["similar"][0] == fitted.vocabulary.ids[int(cosine.argmax())].as_py()
    assert found["score"][0] == pytest.approx(cosine.max(), abs=1e-5)
    assert not (found["similar"] == found["item"]).any()


def test_new_items_join_and_the_old_scores_stay(split, tmp_path):
    rec = tr.Recommender(**SMALL).fit(split.train, epochs=2, verbose=0)
    before = all_scores(rec, split)
    rec.extend([1001, 1002, 1001])
    assert len(rec.vocabulary) == before.shape[1] - 3 + 2
    after = all_scores(rec, split)
    np.testing.assert_array_equal(after[:, : before.shape[1]], before)
    assert np.isfinite(after[:, -2:]).all()
    rec.save(tmp_path / "grown")
    again = tr.Recommender.load(tmp_path / "grown")
    np.testing.assert_array_equal(all_scores(again, split), after)
    rec.fit(split.train, epochs=1, warm_start=True, verbose=0)
    assert 1001 in rec.vocabulary


def test_a_full_disk_leaves_the_old_model_whole(split, tmp_path):
    rec = tr.Recommender(**SMALL).fit(split.train, epochs=1, verbose=0)
    rec.save(tmp_path / "shop")
    before = all_scores(rec, split)
    script = f"""
        import resource, signal
        import tfrec_llm as tr
        rec = tr.Recommender.load({str(tmp_path / "shop")!r})
        rec.extend(range(5000, 9000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            rec.save({str(tmp_path / "shop")!r})
        except tr.errors.SavedModelError as error:
            print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert "refused: The recommender could not be saved" in done.stdout
    assert os.listdir(tmp_path) == ["shop"]
    np.testing.assert_array_equal(all_scores(tr.Recommender.load(tmp_path / "shop"), split), before)


@pytest.mark.parametrize("name", ["model.keras", "vocabulary.parquet", "manifest.json"])
def test_a_missing_or_truncated_file_is_named(name, fitted, tmp_path):
    fitted.save(tmp_path / "shop")
    file = tmp_path / "shop" / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(SavedModelError, match=name):
        tr.Recommender.load(tmp_path / "shop")
    file.unlink()
    with pytest.raises(SavedModelError, match=name):
        tr.Recommender.load(tmp_path / "shop")


def test_what_is_no_saved_model_is_told_apart(fitted, tmp_path):
    with pytest.raises(SavedModelError, match="no saved recommender at"):
        tr.Recommender.load(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "tfrec_llm.recommender.9"}))
    with pytest.raises(SavedModelError, match=r"recommender\.9"):
        tr.Recommender.load(tmp_path)


def log_of(users, items):
    return tr.data.BehaviorLog.from_arrow(
        pa.table({"user": users, "item": items, "time": list(range(len(users)))})
    )


def test_the_smallest_logs_train_or_say_why_not():
    one_user = tr.Recommender(**SMALL).fit(log_of([1, 1, 1], ["a", "b", "a"]), epochs=1, verbose=0)
    assert one_user.recommend(users=[1], k=5, filter_seen=False)["item"].nunique() == 2
    one_item = tr.Recommender(**SMALL).fit(log_of([1, 1], ["a", "a"]), epochs=1, verbose=0)
    assert one_item.recommend(histories=[["a"]], filter_seen=False)["item"].to_list() == ["a"]
    assert one_item.similar_items(["a"]).empty
    with pytest.raises(EmptyLogError, match="None of 2 users"):
        tr.Recommender(**SMALL).fit(log_of([1, 2], ["a", "b"]), epochs=1, verbose=0)
    with pytest.raises(EmptyLogError):
        tr.Recommender(**SMALL).fit(log_of([1], ["a"]).take([]), epochs=1, verbose=0)
    with pytest.raises(NullValueError, match="DropNulls"):
        tr.Recommender(**SMALL).fit(log_of([1, 1], ["a", None]), epochs=1, verbose=0)


def test_rare_items_become_unknown_and_are_never_recommended():
    log = log_of([1, 1, 1, 2, 2, 2], list("abcabd"))
    rec = tr.Recommender(**SMALL, min_count=2).fit(log, epochs=1, verbose=0)
    assert set(rec.recommend(users=[1, 2], k=9, filter_seen=False)["item"]) == {"a", "b"}


def test_kinds_of_behaviour_are_read_and_survive_saving(tmp_path):
    table = pa.table(
        {
            "user": [1, 1, 1, 2, 2],
            "item": list("abcab"),
            "time": [1, 2, 3, 1, 2],
            "behavior": ["view", "buy", "view", "view", "buy"],
        }
    )
    log = tr.data.BehaviorLog.from_arrow(table, behavior="behavior")
    rec = tr.Recommender(**SMALL).fit(log, epochs=1, verbose=0)
    assert rec.model.encoder.num_behaviors == 2
    rec.save(tmp_path / "shop")
    again = tr.Recommender.load(tmp_path / "shop")
    np.testing.assert_array_equal(again.score(again.sequences(log)), rec.score(rec.sequences(log)))
    assert len(rec.recommend(histories=[["a"]], k=1)) == 1


def test_comparison_stands_beside_the_floors_and_needs_their_log_after_load(
    fitted, split, tmp_path
):
    comparison = fitted.compare(split.test, k=5)
    assert {"popularity", "Markov chain", "sequential rules"} < set(comparison)
    fitted.save(tmp_path / "shop")
    again = tr.Recommender.load(tmp_path / "shop")
    with pytest.raises(NotFittedError, match="train="):
        again.compare(split.test)
    assert (
        again.compare(split.test, train=split.train, k=5).to_pandas().equals(comparison.to_pandas())
    )


def test_options_are_checked_before_anything_trains():
    with pytest.raises(ValueError, match="objective must be one of"):
        tr.Recommender("previous")
    with pytest.raises(ValueError, match="block must be one of"):
        tr.Recommender(block="round")
    with pytest.raises(ValueError, match="num_heads must divide"):
        tr.Recommender(emb_dim=10, num_heads=4)
    with pytest.raises(ValueError, match="depth"):
        tr.Recommender(depth=3)
    with pytest.raises(ValueError, match="mask_rate"):
        tr.Recommender("masked", objective_options={"mask_rate": 2})
    with pytest.raises(NotFittedError, match="call fit"):
        tr.Recommender().save("nowhere")


def test_the_learning_curve_is_drawn(fitted, tmp_path):
    fitted.plot_curve(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000


def test_a_sampled_loss_draws_anew_and_learns(split):
    rec = tr.Recommender(**SMALL, loss="sampled", learning_rate=5e-3)
    rec.fit(split.train, epochs=4, verbose=0)
    losses = [row["loss"] for row in rec.curve]
    assert losses[-1] < losses[0]
    assert rec.model.loss.seed_generator is rec.model.loss_seed


AVERAGED = {
    "weight_averaging": 0.5,
    "schedule": "cosine",
    "warmup": 0.2,
    "similarity": "cosine",
    "temperature": 0.1,
    "windows": "random",
    "prefix_rate": 0.5,
    "precision": "float32",
}


def test_averages_schedules_and_windows_resume_and_are_saved(tmp_path):
    split = tr.data.leave_last_out(tr.data.ShopSimulator(60, 30, seed=2).simulate())
    sizes = {"emb_dim": 8, "num_layers": 1, "max_length": 6}

    def recommender():
        return tr.Recommender(**sizes, **AVERAGED)

    options = {"validation": split.valid, "epochs": 4, "patience": 9, "verbose": 0}
    whole = recommender().fit(split.train, **options)

    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    path = tmp_path / "training.npz"
    with pytest.raises(KeyboardInterrupt):
        recommender().fit(split.train, checkpoint=path, callbacks=[Killed()], **options)
    resumed = recommender().fit(split.train, checkpoint=path, **options)
    sequences = whole.histories
    np.testing.assert_allclose(resumed.score(sequences), whole.score(sequences), atol=1e-4)
    resumed.save(tmp_path / "shop.tfrec")
    again = tr.Recommender.load(tmp_path / "shop.tfrec")
    np.testing.assert_array_equal(again.score(sequences), resumed.score(sequences))
    assert again.get_config() == resumed.get_config()
