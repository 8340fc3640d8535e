"""A small shop with a fitted recommender, that the tests of serving export."""

import contextlib
import threading
from time import sleep

import numpy as np
import pyarrow as pa

import tfrec_llm as tr

SMALL = {"emb_dim": 8, "num_layers": 1, "num_heads": 2, "max_length": 10, "precision": "float32"}
KINDS = ("tops", "skirts", "hats")


def shop_catalogue():
    """Returns 24 items with a kind and a price."""
    items = [f"{kind}-{number}" for kind in KINDS for number in range(8)]
    table = pa.table(
        {
            "item": items,
            "kind": [item.partition("-")[0] for item in items],
            "price": [float(number % 5) for number in range(len(items))],
        }
    )
    return tr.data.Catalogue(table)


def shop_log(num_users=60, *, seed=0):
    """Returns a log of views and purchases by users "u0", "u1", ..., with the catalogue."""
    rng = np.random.default_rng(seed)
    items = shop_catalogue().ids.to_pylist()
    rows = []
    for user in range(num_users):
        own = 8 * (user % 3)
        for time in range(int(rng.integers(3, 14))):
            place = own + int(rng.integers(8)) if rng.random() < 0.8 else int(rng.integers(24))
            behavior = "view" if rng.random() < 0.7 else "buy"
            rows.append((f"u{user}", items[place], time, behavior))
    user, item, time, behavior = zip(*rows, strict=True)
    table = pa.table({"user": user, "item": item, "time": time, "behavior": behavior})
    return tr.data.BehaviorLog.from_arrow(table, behavior="behavior", catalogue=shop_catalogue())


def shop_profiles(num_users=60):
    """Returns what is known of the users: a style, which says what kind they like, and an age."""
    return tr.data.UserTable(
        pa.table(
            {
                "user": [f"u{user}" for user in range(num_users)],
                "style": [f"style {user % 3}" for user in range(num_users)],
                "age": [20 + 20 * (user % 3) for user in range(num_users)],
                "name": [f"a long text about user {user}" for user in range(num_users)],
            }
        ),
        types={"age": "numeric", "name": "text"},
    )


def shop_split():
    """Returns the log, split."""
    return tr.data.leave_last_out(shop_log())


def fitted_shop():
    """Returns a recommender that reads strings, kinds of behaviour and features."""
    rec = tr.Recommender(**SMALL, item_features=["kind", "price"], learning_rate=0.01)
    return rec.fit(shop_split().train, epochs=1, verbose=0)


def fitted_numbers():
    """Returns a recommender whose ids are integers, trained to fill masks."""
    log = tr.data.ShopSimulator(60, 30, seed=3).simulate()
    rec = tr.Recommender("masked", **SMALL, similarity="cosine", temperature=0.1, min_count=3)
    return rec.fit(tr.data.leave_last_out(log).train, epochs=1, verbose=0)


@contextlib.contextmanager
def answering(app):
    """Runs an application behind a real port of this machine, and gives its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
