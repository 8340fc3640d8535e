import os
import subprocess
import sys


def test_tensorflow_will_multiply_with_onednn_unless_told_otherwise():
    program = "import tfrec_llm, os; print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
    bare = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    for given, expected in (({}, "1"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")):
        done = subprocess.run(
            [sys.executable, "-c", program], env=bare | given, capture_output=True, text=True
        )
        assert done.stdout.strip() == expected
