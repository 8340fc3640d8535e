"""Trains on all GPUs of this machine, or on several processor devices where it has none."""

import argparse

import tensorflow as tf

import tfrec_llm as tr

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--users", type=int, default=2000, help="customers of the simulated shop")
parser.add_argument("--devices", type=int, default=2, help="processor devices without a GPU")
arguments = parser.parse_args()

if not tf.config.list_physical_devices("GPU"):
    # One processor as several devices, which has to be said before TensorFlow starts.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * arguments.devices,
    )
strategy = tr.training.distribution_strategy("mirrored")
print(f"{strategy.num_replicas_in_sync} replicas share every batch.")

shop = tr.data.ShopSimulator(num_users=arguments.users, num_items=200, seed=1)
split = tr.data.leave_last_out(shop.simulate())

# Of a global batch of 32 rows each of two replicas takes 16.
recommender = tr.Recommender(emb_dim=32, max_length=50, batch_size=32)
recommender.fit(
    split.train,
    validation=split.valid,
    epochs=arguments.epochs,
    strategy=strategy,
    checkpoint="training.npz",  # after an interrupt, the same command goes on
    verbose=2,
)
print(recommender.evaluate(split.test))
