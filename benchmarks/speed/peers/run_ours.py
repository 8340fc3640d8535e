"""Worker: trains, recommends or learns to a target with this library, as one job says.

python run_ours.py job.json
"""

import math

import keras
from measuring import Curve, Steps, read_job, users_a_second, write_json

import tfrec_llm as tr


def main() -> None:
    job = read_job()
    log = tr.data.BehaviorLog.from_parquet(job["train"])
    write_json(job["result"], to_best(job, log) if job["mode"] == "to_best" else speed(job, log))


def speed(job: dict, log: tr.data.BehaviorLog) -> dict:
    """Measures training and recommending."""
    keras.utils.set_random_seed(job["seed"])
    sizes = job["sizes"] | {"hid_dim": job.get("hid_dim")}
    vocabulary = tr.data.Vocabulary.fit(log.item)
    sequences = tr.data.UserSequences.from_log(log, vocabulary)
    batches = packed(sequences, job)
    precision = job.get("precision") or tr.training.fast_precision()
    model = make_model(vocabulary.size, sizes, precision)
    losses = {
        "softmax": tr.losses.CatalogCrossEntropy,
        "sampled": lambda: tr.losses.SampledCrossEntropy(job["negatives"], seed=job["seed"]),
    }
    steps_a_call = job.get("steps_per_execution", 1)
    model.compile(
        keras.optimizers.Adam(job["learning_rate"]),
        loss=losses[job["loss"]](),
        jit_compile=job.get("jit_compile", "auto"),
        steps_per_execution=steps_a_call,
    )
    # Steps of one call end together, so the first ones are those of whole calls.
    warmup = steps_a_call * math.ceil(job["warmup"] / steps_a_call)
    clock = StepClock(Steps(len(batches), epochs=job["epochs"], warmup=warmup))
    model.fit(batches, epochs=job["epochs"], callbacks=[clock], verbose=0)
    result = clock.steps.result() | {"precision": precision, "fill": batches.packing.fill}
    scoring = model
    if precision != "float32":  # as Recommender does: scores are float32
        scoring = make_model(vocabulary.size, sizes, "float32")
        scoring.set_weights(model.get_weights())
    scorer = tr.evaluation.ModelScorer(scoring, vocabulary, histories=sequences)
    result["users_a_second"] = users_a_second(lambda: scorer.recommend(k=10), len(sequences))
    return result


def packed(sequences: tr.data.UserSequences, job: dict) -> tr.data.PackedBatches:
    """Returns batches of as many users as the others take, packed into rows."""
    options = {"max_length": job["sizes"]["max_length"], "seed": job["seed"]}
    rows = tr.data.next_batches(sequences, **options).packing.num_rows
    steps = math.ceil(len(sequences) / job["batch_size"])
    return tr.data.next_batches(sequences, batch_size=math.ceil(rows / steps), **options)


def make_model(vocab_size: int, sizes: dict, precision: str) -> tr.models.NextBehaviorModel:
    encoder = tr.models.BehaviorEncoder(vocab_size, dtype=precision, **sizes)
    model = tr.models.NextBehaviorModel(encoder)
    model.build()
    return model


class StepClock(keras.callbacks.Callback):
    """Hands the steps of `fit` to a clock."""

    def __init__(self, steps: Steps):
        super().__init__()
        self.steps = steps

    def on_train_begin(self, logs=None):
        self.steps.begin()

    def on_epoch_begin(self, epoch, logs=None):
        self.done, self.sum = 0, 0.0

    def on_train_batch_end(self, batch, logs=None):
        # Keras logs the mean since the epoch's begin, and calls once for all steps of a call, as
        # many in the last one, too, where the data has fewer.
        done = min(batch + 1, self.steps.steps)
        total = done * float(logs["loss"])
        for _ in range(done - self.done):
            self.steps.end_step((total - self.sum) / (done - self.done))
        self.done, self.sum = done, total


def to_best(job: dict, log: tr.data.BehaviorLog) -> dict:
    """Trains until the target is passed; validation's time is left out."""
    valid = tr.data.BehaviorLog.from_parquet(job["valid"])
    recommender = tr.Recommender(**job["settings"])
    curve = CurveWriter(Curve(job["curve"], **job["stop"]))
    recommender.fit(
        log, validation=valid, epochs=10_000, patience=10_000, callbacks=[curve], verbose=0
    )
    return {"settings": recommender.get_config()}


class CurveWriter(keras.callbacks.Callback):
    """Hands the epochs of `Recommender.fit` to a curve."""

    def __init__(self, curve: Curve):
        super().__init__()
        self.curve = curve
        self.seconds = 0.0

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += float(logs["seconds"])
        if self.curve.add(self.seconds, float(logs["val_ndcg@10"]), float(logs["loss"])):
            self.model.stop_training = True


if __name__ == "__main__":
    main()
