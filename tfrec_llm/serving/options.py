"""What may be set of a server."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ServerOptions:
    """Limits, keys and names of a server.

    Attributes:
        name: Of the model, in `/v1/models/NAME`; None for the name of its folder.
        api_keys: Who knows one may ask; empty lets everyone.
        max_k: Most items of a list.
        max_history: Most behaviours of a history, sent or kept.
        max_events: Most events of a request.
        max_rows: Most users of a request in TensorFlow Serving's form.
        max_body: Most bytes of a request's body.
        rate: Requests a second that each key, or address where there are no keys, may make on
            average; None for any number.
        burst: Requests that may come at once.
        max_batch: Most requests that one call of the model answers.
        timeout: Seconds after which a list is made of what is popular.
        poll_seconds: How often the folder is looked at for new versions.
        log_key: Makes users' ids in the log unreadable; the same key on all servers lets a
            user's lines be found together. None for one of the process.
    """

    name: str | None = None
    api_keys: Sequence[str] = field(default=(), repr=False)
    max_k: int = 200
    max_history: int = 500
    max_events: int = 1000
    max_rows: int = 256
    max_body: int = 1_000_000
    rate: float | None = None
    burst: int = 100
    max_batch: int = 64
    timeout: float = 0.5
    poll_seconds: float = 5.0
    log_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        limits = (
            "max_k",
            "max_history",
            "max_events",
            "max_rows",
            "max_body",
            "burst",
            "max_batch",
        )
        for name in limits:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name in ("timeout", "poll_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"rate must be above 0, got {self.rate}.")
        if any(not key for key in self.api_keys):
            raise ValueError("An API key is empty.")
