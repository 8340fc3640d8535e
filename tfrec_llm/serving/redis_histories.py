"""Histories in Redis: one store for servers on several machines."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence

from tfrec_llm.errors import StoreError
from tfrec_llm.serving.histories import MAX_EVENTS, Event, HistoryStore

# Of a user there are two keys, renewed by every event: a sorted set of places by time, and a hash
# of the events by id. A place is the number an event came by and its id, so that events of equal
# time stay in the order they came. Redis runs a script whole: no other command comes between.
_ADD = """
local is_new = redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[3])
if is_new == 1 then
  local number = redis.call('INCR', KEYS[3])
  redis.call('ZADD', KEYS[1], ARGV[2], string.format('%016d', number) .. ARGV[1])
  local over = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[4])
  if over > 0 then
    local oldest = redis.call('ZRANGE', KEYS[1], 0, over - 1)
    for _, place in ipairs(oldest) do
      redis.call('HDEL', KEYS[2], string.sub(place, 17))
    end
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, over - 1)
  end
  if tonumber(ARGV[5]) > 0 then
    redis.call('EXPIRE', KEYS[1], ARGV[5])
    redis.call('EXPIRE', KEYS[2], ARGV[5])
  end
end
return is_new
"""
_NEWEST = """
local places = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local found = {}
for i, place in ipairs(places) do
  found[i] = redis.call('HGET', KEYS[2], string.sub(place, 17))
end
return found
"""
_ERASE = """
local count = redis.call('HLEN', KEYS[2])
redis.call('DEL', KEYS[1], KEYS[2])
return count
"""


class RedisHistories(HistoryStore):
    """Keeps histories in Redis, which several servers share.

    How safe an event is when Redis itself fails is Redis' to settle: `appendfsync always` keeps
    what was acknowledged, the default `everysec` may lose a second. An expired user goes whole,
    `max_age` after the newest event; older events of others are only left out.

    Args:
        url: Such as `"redis://localhost:6379/0"`.
        prefix: Of the keys.
        timeout: Seconds to wait for Redis.
        max_events: See `HistoryStore`.
        max_age: See `HistoryStore`.

    Raises:
        ImportError: If the extra `[redis]` is not installed.
        ValueError: If the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "tfrec",
        timeout: float = 0.5,
        max_events: int = MAX_EVENTS,
        max_age: float = math.inf,
    ):
        super().__init__(max_events=max_events, max_age=max_age)
        try:
            import redis
        except ImportError as error:
            raise ImportError(
                "Histories in Redis need its client: pip install 'tfrec-llm[redis]'."
            ) from error
        self._errors_of_redis = redis.RedisError
        self._prefix = prefix
        self._redis = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, decode_responses=True
        )
        self._add = self._redis.register_script(_ADD)
        self._newest = self._redis.register_script(_NEWEST)
        self._erase = self._redis.register_script(_ERASE)

    def add(self, events: Sequence[Event]) -> list[bool]:
        seconds = 0 if math.isinf(self.max_age) else max(1, math.ceil(self.max_age))
        with self._errors():
            pipeline = self._redis.pipeline(transaction=True)
            for event in events:
                self._add(
                    keys=[*self._keys(event.user), f"{self._prefix}:number"],
                    args=[
                        event.id,
                        repr(event.time),
                        json.dumps([event.id, event.item, event.time, event.behavior]),
                        self.max_events,
                        seconds,
                    ],
                    client=pipeline,
                )
            return [bool(one) for one in pipeline.execute()]

    def newest(
        self, users: Sequence[str], count: int, *, now: float | None = None
    ) -> dict[str, list[Event]]:
        oldest = (time.time() if now is None else now) - self.max_age
        with self._errors():
            pipeline = self._redis.pipeline(transaction=False)
            for user in users:
                least = "-inf" if math.isinf(oldest) else repr(oldest)
                self._newest(keys=self._keys(user), args=[least, count], client=pipeline)
            found = pipeline.execute()
        histories = {}
        for user, written in zip(users, found, strict=True):
            rows = [json.loads(one) for one in reversed(written)]
            histories[user] = [
                Event(id, user, item, moment, behavior) for id, item, moment, behavior in rows
            ]
        return histories

    def erase(self, user: str) -> int:
        with self._errors():
            return int(self._erase(keys=self._keys(user)))

    def purge(self, *, now: float | None = None) -> int:
        return 0  # Redis forgets by itself

    def close(self) -> None:
        self._redis.close()

    def _keys(self, user: str) -> list[str]:
        # What stands in braces settles the machine of a Redis cluster: both keys are on one.
        return [f"{self._prefix}:places:{{{user}}}", f"{self._prefix}:events:{{{user}}}"]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._errors_of_redis as error:
            raise StoreError(f"Redis cannot be used: {error}") from error
