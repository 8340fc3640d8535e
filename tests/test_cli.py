import json
import os
import subprocess
import sys

import pandas as pd
import pytest

import tfrec_llm as tr
from tfrec_llm.cli import main

SMALL = ["--epochs", "1", "--emb-dim", "8", "--num-layers", "1", "--max-length", "20"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a log of 120 customers as CSV and Parquet, and a model trained on it."""
    folder = tmp_path_factory.mktemp("shop")
    log = tr.data.ShopSimulator(120, 25, seed=3).simulate()
    log.to_parquet(folder / "log.parquet")
    log.to_pandas().to_csv(folder / "log.csv", index=False)
    code = main(["train", str(folder / "log.csv"), "-o", str(folder / "model"), *SMALL])
    assert code == 0
    return folder


def complaint(capsys):
    """Returns the one line that a failed command leaves, and checks that it is the only one."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("tfrec-llm: error: ")
    return lines[0]


def test_help_and_version_are_there_at_once_without_a_framework():
    program = (
        "import sys; from tfrec_llm.cli import main; "
        "codes = [main(['--help']), main(['train', '--help']), main(['--version'])]; "
        "print(codes, {'tensorflow', 'keras', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == [f"tfrec-llm {tr.__version__}", "[0, 0, 0] set()"]


def test_tensorflow_keeps_quiet_at_its_start(shop):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    program = "import sys; from tfrec_llm.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "recommend", str(shop / "model"), "--users", "1"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_command_is_a_wrong_use(capsys):
    assert main([]) == 2
    assert "usage: tfrec-llm" in capsys.readouterr().err


# train


def test_train_saves_a_recommender_that_knows_every_behaviour(shop):
    recommender = tr.Recommender.load(shop / "model")
    log = tr.data.BehaviorLog.from_csv(shop / "log.csv")
    assert recommender.histories.lengths.sum() == len(log)


def test_train_reads_a_folder_of_parquet_files_and_splits_in_time(shop, tmp_path, capsys):
    (tmp_path / "parts").mkdir()
    log = tr.data.BehaviorLog.from_parquet(shop / "log.parquet").to_pandas()
    log = log.rename(columns={"user": "customer", "item": "sku"})
    log[:400].to_parquet(tmp_path / "parts" / "1.parquet")
    log[400:].to_parquet(tmp_path / "parts" / "2.parquet")
    options = ["--user", "customer", "--item", "sku", "--validation", "temporal"]
    options += ["--objective", "masked", "-o", str(tmp_path / "model")]
    assert main(["train", str(tmp_path / "parts"), *options, *SMALL]) == 0
    # evaluate needs to be told none of it again.
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "model"), str(tmp_path / "parts")]) == 0
    assert "ndcg" in capsys.readouterr().out


def test_train_says_which_column_is_missing(shop, tmp_path, capsys):
    assert main(["train", str(shop / "log.csv"), "-o", f"{tmp_path}/m", "--user", "uid"]) == 1
    line = complaint(capsys)
    assert "uid" in line
    assert "--user" in line


def test_train_refuses_a_truncated_file(shop, tmp_path, capsys):
    whole = (shop / "log.parquet").read_bytes()
    (tmp_path / "log.parquet").write_bytes(whole[: len(whole) // 2])
    assert main(["train", str(tmp_path / "log.parquet"), "-o", f"{tmp_path}/m"]) == 1
    assert "log.parquet" in complaint(capsys)
    assert not (tmp_path / "m").exists()


def test_train_refuses_to_replace_a_folder_of_other_files(shop, capsys):
    assert main(["train", str(shop / "log.csv"), "-o", str(shop)]) == 1
    assert "other files" in complaint(capsys)
    assert (shop / "log.csv").exists()


def test_train_refuses_a_width_that_its_heads_do_not_divide(shop, tmp_path, capsys):
    options = ["-o", f"{tmp_path}/m", "--emb-dim", "9", "--num-heads", "2"]
    assert main(["train", str(shop / "log.csv"), *options]) == 2
    complaint(capsys)


def test_an_interrupted_training_goes_on_where_it_was(shop, tmp_path, capsys, monkeypatch):
    checkpoint = tmp_path / "training.npz"
    command = ["train", str(shop / "log.csv"), "-o", f"{tmp_path}/m", *SMALL, "--epochs", "3"]
    command += ["--checkpoint", str(checkpoint)]

    import keras

    class CtrlC(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    whole = tr.Recommender.fit

    def interrupted(self, *args, **options):
        return whole(self, *args, callbacks=[CtrlC()], **options)

    with monkeypatch.context() as patched:
        patched.setattr(tr.Recommender, "fit", interrupted)
        assert main(command) == 130
    assert str(checkpoint) in capsys.readouterr().err
    assert checkpoint.exists()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "Going on from the checkpoint" in said
    assert "Epoch 1/3" not in said
    assert [epoch["epoch"] for epoch in tr.Recommender.load(tmp_path / "m").curve] == [0, 1, 2]
    assert not checkpoint.exists()


def test_debug_shows_where_an_error_came_from(shop, tmp_path, capsys):
    assert main(["train", "nowhere.csv", "-o", f"{tmp_path}/m", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_log_larger_than_memory_is_written_to_shards_and_trained_on(shop, tmp_path, capsys):
    shards, model = str(tmp_path / "shards"), str(tmp_path / "model")
    options = ["-o", shards, "--num-shards", "3", "--k-core", "3", "3"]
    assert main(["shards", str(shop / "log.parquet"), *options, "--validation", "0.2"]) == 0
    assert "3 files" in capsys.readouterr().out
    assert main(["train", shards, "-o", model, *SMALL]) == 0
    assert "validation NDCG@10" in capsys.readouterr().out
    rec = tr.Recommender.load(model)
    assert rec.vocabulary == tr.data.Shards.open(shards).vocabulary
    assert len(rec.recommend(histories=[rec.vocabulary.ids.to_pylist()[:2]], k=3)) == 3


def test_shards_say_what_is_missing_before_anything_is_done(shop, tmp_path, capsys):
    log, shards = str(shop / "log.parquet"), str(tmp_path / "shards")
    assert main(["shards", log, "-o", shards, "--no-time"]) == 2
    assert "--time" in complaint(capsys)
    assert main(["shards", log, "-o", shards, "--user", "customer"]) == 1
    assert "--user" in complaint(capsys)
    assert main(["shards", log, "-o", shards, "--num-shards", "2"]) == 0
    capsys.readouterr()
    assert main(["train", shards, "-o", str(tmp_path / "model"), *SMALL]) == 2
    assert "--validation none" in complaint(capsys)
    assert main(["train", shards, log, "-o", str(tmp_path / "model"), *SMALL]) == 2
    assert "alone" in complaint(capsys)


# evaluate


def test_evaluate_gives_the_numbers_of_the_library(shop, tmp_path, capsys):
    numbers = tmp_path / "numbers.json"
    command = ["evaluate", str(shop / "model"), str(shop / "log.csv"), "--json", str(numbers)]
    assert main(command) == 0
    assert "ndcg" in capsys.readouterr().out
    split = tr.data.leave_last_out(tr.data.BehaviorLog.from_csv(shop / "log.csv"))
    expected = tr.Recommender.load(shop / "model").evaluate(split.test)
    assert json.loads(numbers.read_text()) == json.loads(json.dumps(expected.to_dict()))


def test_evaluate_shows_the_floors_beside_the_model(shop, capsys):
    assert main(["evaluate", str(shop / "model"), str(shop / "log.csv"), "--floors"]) == 0
    said = capsys.readouterr().out
    assert "Markov chain" in said
    assert "next behaviour" in said


def test_evaluate_says_that_there_is_no_model(shop, capsys):
    assert main(["evaluate", str(shop / "nothing"), str(shop / "log.csv")]) == 1
    assert "no saved recommender" in complaint(capsys)


def test_evaluate_says_which_file_of_the_model_is_missing(shop, tmp_path, capsys):
    tr.Recommender.load(shop / "model").save(tmp_path / "model")
    (tmp_path / "model" / "vocabulary.parquet").unlink()
    options = ["--split", "leave-last-out"]
    assert main(["evaluate", str(tmp_path / "model"), str(shop / "log.csv"), *options]) == 1
    assert "vocabulary.parquet is missing" in complaint(capsys)


def test_evaluate_refuses_floors_without_a_training_part(shop, capsys):
    command = ["evaluate", str(shop / "model"), str(shop / "log.csv")]
    assert main([*command, "--split", "none", "--floors"]) == 2
    assert "--floors" in complaint(capsys)


# recommend


def test_recommend_prints_a_table_for_known_users(shop, capsys):
    assert main(["recommend", str(shop / "model"), "--users", "3,1", "-k", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["user", "rank", "item", "score"]
    assert [line.split()[0] for line in lines[1:]] == ["3"] * 4 + ["1"] * 4


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_recommend_writes_what_the_library_recommends(shop, tmp_path, ending):
    path = tmp_path / f"found.{ending}"
    (tmp_path / "users.txt").write_text("5\n9\n")
    command = ["recommend", str(shop / "model"), "--users-file", str(tmp_path / "users.txt")]
    assert main([*command, "-o", str(path)]) == 0
    found = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    expected = tr.Recommender.load(shop / "model").recommend([5, 9], k=10)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-5)


def test_recommend_takes_the_history_of_a_new_user(shop, capsys):
    command = ["recommend", str(shop / "model"), "-k", "1", "--candidates", "1,2,3"]
    assert main([*command, "--history", "1,2", "--history", "2,3"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    # What they did already is not recommended, so one candidate is left for each.
    assert [line.split()[:3] for line in lines] == [["1", "1", "3"], ["2", "1", "1"]]


def test_recommend_names_an_unknown_user(shop, capsys):
    assert main(["recommend", str(shop / "model"), "--users", "1,987654"]) == 1
    assert "987654" in complaint(capsys)


def test_recommend_says_that_ids_are_numbers(shop, capsys):
    assert main(["recommend", str(shop / "model"), "--history", "A13"]) == 1
    assert "'A13' is unknown" in complaint(capsys)


def test_recommend_refuses_an_output_of_no_known_kind(shop, capsys):
    assert main(["recommend", str(shop / "model"), "-o", "found.xlsx"]) == 2
    assert ".csv or .parquet" in capsys.readouterr().err


# clean


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_clean_writes_what_is_left_and_counts_what_is_not(tmp_path, capsys, ending):
    (tmp_path / "raw.csv").write_text(
        "who,what,when,shelf\na,x,1,7\na,x,1,7\n,y,2,8\nb,y,3,9\nb,y,4,9\n"
    )
    path = tmp_path / f"clean.{ending}"
    columns = ["--user", "who", "--item", "what", "--time", "when"]
    steps = ["--drop-nulls", "--drop-duplicates", "--drop-repeats"]
    assert main(["clean", str(tmp_path / "raw.csv"), "-o", str(path), *columns, *steps]) == 0
    left = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    assert left.to_dict("list") == {
        "user": ["a", "b"],
        "item": ["x", "y"],
        "time": [1, 3],
        "shelf": [7, 9],
    }
    report = capsys.readouterr().out
    assert [line.split()[-3] for line in report.splitlines()[2:5]] == ["1", "1", "1"]


def test_clean_says_which_step_left_nothing(shop, tmp_path, capsys):
    output = tmp_path / "left.csv"
    command = ["clean", str(shop / "log.csv"), "-o", str(output), "--k-core", "9999", "9999"]
    assert main(command) == 1
    *report, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith("tfrec-llm: error: The step 'k-core user 9999, item 9999' removed all")
    assert report[1].startswith("as read")
    assert not output.exists()


def test_clean_refuses_a_time_that_is_none(shop, tmp_path, capsys):
    command = ["clean", str(shop / "log.csv"), "-o", f"{tmp_path}/left.csv", "--start", "soon"]
    assert main(command) == 1
    assert "soon" in complaint(capsys)


def test_clean_wants_a_step(shop, tmp_path, capsys):
    assert main(["clean", str(shop / "log.csv"), "-o", f"{tmp_path}/left.csv"]) == 2
    assert "no step" in complaint(capsys)


# demo


@pytest.fixture
def fewer_sessions(monkeypatch):
    """The demo's clicks, of the first 300 sessions only."""
    from tfrec_llm.data import datasets

    whole = datasets.load("eshop")
    part = whole.take(whole.user_codes()[0] < 300)
    monkeypatch.setattr(datasets, "load", lambda name: part)


@pytest.mark.parametrize("objective", ["next", "masked"])
def test_demo_compares_speaks_in_words_and_draws(fewer_sessions, tmp_path, capsys, objective):
    output = tmp_path / "demo"
    assert main(["demo", "--objective", objective, "--epochs", "1", "-o", str(output)]) == 0
    said = capsys.readouterr().out
    assert "Markov chain" in said
    assert said.count("looked at") == 3
    for name in ("learning_curve.png", "comparison.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    assert main(["recommend", str(output / f"{objective}.tfrec"), "--history", "A13,B4"]) == 0


def test_demo_refuses_an_objective_that_is_none(capsys):
    assert main(["demo", "--objective", "last"]) == 2
    assert "'masked'" in capsys.readouterr().err


def test_demo_refuses_no_epochs(capsys):
    assert main(["demo", "--epochs", "0"]) == 2
    assert "above 0" in capsys.readouterr().err


def test_demo_says_that_its_output_is_a_file(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert main(["demo", "-o", str(tmp_path / "taken")]) == 1
    assert "taken" in complaint(capsys)


def test_a_saved_model_becomes_the_next_version_to_serve(shop, tmp_path, capsys):
    arguments = ["export", str(shop / "model"), "-o", str(tmp_path / "served"), "--exclude", "3"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"exported to {tmp_path / 'served' / '1'}\n"
    assert main([*arguments, "--catalogue-key", "sku"]) == 2
    assert "goes with --catalogue" in complaint(capsys)
    model = tr.serving.ExportedModel(tmp_path / "served" / "1")
    assert 3 not in model.recommend([[]], k=25)[0].items


def test_tune_saves_the_best_trial_with_its_table_and_picture(shop, tmp_path, capsys):
    pytest.importorskip("keras_tuner", reason="pip install 'tfrec-llm[tuning]'")
    command = ["tune", str(shop / "log.csv"), "-o", str(tmp_path / "best"), "--epochs", "1"]
    command += ["--folder", str(tmp_path / "tuning"), "--trials", "1", "--max-length", "10"]
    assert main(command) == 0
    told = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "tuning" / "trials.csv")
    assert f"ndcg@10 {table['score'][0]:.4f} on validation" in told
    assert (tmp_path / "tuning" / "trials.png").stat().st_size > 1000
    assert main(["recommend", str(tmp_path / "best"), "--history", "7"]) == 0


def test_tune_says_what_is_wrong_before_it_searches(shop, tmp_path, capsys):
    pytest.importorskip("keras_tuner", reason="pip install 'tfrec-llm[tuning]'")
    command = ["tune", str(shop / "log.csv"), "-o", str(tmp_path / "best")]
    command += ["--folder", str(tmp_path / "tuning"), "--metric", "auc@10"]
    assert main(command) != 0
    assert "auc" in complaint(capsys)
