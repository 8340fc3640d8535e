"""The GPU benchmark runs where there is no TensorFlow, here on the CPU and on little data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "training_step.py"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks/ is not beside the tests")

# Found by Python at its start, in the processes that the script starts, too.
REFUSE_TENSORFLOW = """
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def without_tensorflow(tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed: pip install 'tfrec-llm[test]'")
    (tmp_path / "sitecustomize.py").write_text(REFUSE_TENSORFLOW)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    return os.environ | {
        "PYTHONPATH": path,
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "jax",
        # What is computed is the same; XLA spends less time on making it fast.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }


@pytest.mark.slow
def test_the_benchmark_measures_a_tiny_model_on_jax_alone(without_tensorflow, tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--backends", "jax", "--sizes", "tiny", "--results", tmp_path],
        env=without_tensorflow,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (measured,) = json.loads((tmp_path / "cpu.json").read_text()).values()
    tiny = measured["tiny"]
    assert tiny["machine"]["device"] == "CPU"
    assert tiny["step"]["behaviors_a_second"] > 0
    assert tiny["fit"]["behaviors_a_second"] > 0
    assert tiny["step"]["share_of_peak"] is None, "a CPU is not in the table of cards"
    assert isinstance(tiny["attention_milliseconds"]["library"], float)
    assert tiny["attention_milliseconds"]["cuDNN"].startswith("not usable")
    assert "jax, tiny" in done.stdout


def test_training_scoring_and_saving_need_no_tensorflow(without_tensorflow, tmp_path):
    code = f"""
import tfrec_llm as tr
split = tr.data.leave_last_out(tr.data.ShopSimulator(60, 20).simulate())
rec = tr.Recommender(emb_dim=8, num_layers=1, max_length=8)
rec.fit(split.train, validation=split.valid, epochs=1, verbose=0)
rec.save({str(tmp_path / "rec")!r})
again = tr.Recommender.load({str(tmp_path / "rec")!r})
assert dict(again.evaluate(split.test)) == dict(rec.evaluate(split.test))
assert len(rec.recommend(histories=[[rec.vocabulary.ids[0].as_py()]], k=3))
import sys
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=without_tensorflow, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
