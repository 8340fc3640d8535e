"""Embeds users and items, and trains the probability of a click in a loop of one's own."""

import argparse

import keras
import numpy as np

from tfrec_llm import ItemEmbedding, Recommendation, UserEmbedding, evaluate, train_epoch
from tfrec_llm.data import ShopSimulator, Vocabulary

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--users", type=int, default=1000, help="customers of the simulated shop")
arguments = parser.parse_args()


class Clicks(keras.Model):
    """p = sigmoid(w^T relu(W [h_u ; g_i]))."""

    def __init__(self, num_users, num_items, emb_dim=16, hid_dim=32):
        super().__init__()
        self.user_embedding = UserEmbedding(num_users, emb_dim)
        self.item_embedding = ItemEmbedding(num_items, emb_dim)
        self.recommendation = Recommendation(emb_dim, hid_dim)

    def call(self, user_data, item_data):
        h_u = self.user_embedding(user_data)
        g_i = self.item_embedding(item_data)
        return self.recommendation(h_u, g_i)


# What customers did are clicks; as many pairs drawn at random are none.
log = ShopSimulator(arguments.users, num_items=100, seed=1).simulate()
users, items = Vocabulary.fit(log.user), Vocabulary.fit(log.item)
rng = np.random.default_rng(0)
user_data = np.tile(users.encode(log.user), 2)
random_items = rng.integers(items.size - len(items), items.size, len(log))
item_data = np.concatenate([items.encode(log.item), random_items])
labels = np.repeat([1.0, 0.0], len(log))

order = rng.permutation(len(labels))
train, test = np.split(order, [len(order) * 9 // 10])
model = Clicks(users.size, items.size)
for epoch in range(arguments.epochs):
    loss = train_epoch(model, user_data[train], item_data[train], labels[train], batch_size=256)
    held_out = evaluate(model, user_data[test], item_data[test], labels[test], batch_size=256)
    print(
        f"epoch {epoch + 1}: loss {loss:.4f}, held out {held_out:.4f}, "
        f"AUC {held_out.auc:.3f}, accuracy {held_out.accuracy:.3f}"
    )
