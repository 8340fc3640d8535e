import subprocess
import sys
import time

FRAMEWORKS = ("tensorflow", "keras", "jax", "torch")

PREPARE = """
import sys
import tfrec_llm as tr

log = tr.data.BehaviorLog.from_csv(sys.argv[1])
log = tr.data.clean(log, [tr.data.DropNulls(), tr.data.KCore(user=3, item=1)]).log
split = tr.data.leave_last_out(log)
vocabulary = tr.data.Vocabulary.fit(split.train.item)
sequences = tr.data.UserSequences.from_log(split.train, vocabulary)
assert sequences.lengths.tolist() == [2, 2], sequences.lengths
assert len(split.test) == 2
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_preparing_data_loads_no_deep_learning_framework(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"{user},i{time % 3},{time}" for time in range(4) for user in ("u", "v")]
    path.write_text("\n".join(["user,item,time", *rows, "w,i0,9", ",i0,9"]))
    assert python(PREPARE, str(path), *FRAMEWORKS).split() == []


def test_every_module_of_the_data_room_but_the_batches_needs_no_framework():
    code = """
import importlib, pkgutil, sys
import tfrec_llm.data
for module in pkgutil.iter_modules(tfrec_llm.data.__path__, "tfrec_llm.data."):
    if not module.name.endswith("batches"):
        importlib.import_module(module.name)
        print(*(f"{module.name}:{name}" for name in sys.argv[1:] if name in sys.modules))
"""
    assert python(code, *FRAMEWORKS).split() == []


def test_importing_the_library_is_cheap():
    load = "import sys, tfrec_llm, tfrec_llm.data"
    loaded = f"{load}; print(*(name for name in sys.argv[1:] if name in sys.modules))"
    assert python(loaded, "pandas", "pyarrow", "numpy", "scipy", *FRAMEWORKS).split() == []

    def seconds(code):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            python(code)
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(load) - seconds("pass") < 0.3


def test_every_name_of_the_data_room_is_there():
    import tfrec_llm.data

    missing = [name for name in tfrec_llm.data.__all__ if not hasattr(tfrec_llm.data, name)]
    assert missing == []
    assert set(tfrec_llm.data.__all__) <= set(dir(tfrec_llm.data))
