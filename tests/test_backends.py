"""What uses Keras computes the same on the other backend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# What can differ between backends; the rest is told on one.
CHOSEN = "sound or plain or see_each_other or draws_anew or same_draws or (all_positions and True)"
CHOSEN += " or tensorflow_addons or part_of_the_way or zero_rows or on_every_backend"
CHOSEN += " or devices_of_jax"
# Weights that join in make a step compile anew, part by part.
CHOSEN = f"({CHOSEN}) and not gradual_unfreezing"
ROOMS = ("layers", "losses", "metrics", "models", "optimizers", "training")
# Compiling takes most of the time there; their variants are told on one backend.
ONE_VARIANT = ROOMS


def test_layers_losses_metrics_models_optimizers_and_training_work_on_jax():
    pytest.importorskip("jax", reason="JAX is not installed: pip install 'tfrec-llm[test]'")
    folders = [TESTS / name for name in ROOMS]
    # What is computed is the same; XLA spends less time on making it fast.
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    quick += " --xla_force_host_platform_device_count=2"
    options = ["-q", "-p", "no:cacheprovider", "-k", CHOSEN, "--one-variant-in", *ONE_VARIANT]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *folders, *options],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 40
