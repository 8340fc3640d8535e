"""What stands before a server's routes: keys, rates, sizes, measures and the log."""

import hashlib
import hmac
import json
import logging
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tfrec_llm.serving.measures import Measures
from tfrec_llm.serving.options import ServerOptions
from tfrec_llm.serving.page import PATHS

_log = logging.getLogger("tfrec_llm.serving.requests")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Probes of whatever starts the server, and the page, which asks for a key: they tell nothing of the
# shop.
_OPEN = ("/healthz", "/readyz", *PATHS)
# Callers whose rate is remembered.
_CALLERS = 10_000


class Gate:
    """Lets requests through to an ASGI application, or says why not.

    Args:
        app: The application.
        options: Keys and limits.
        measures: What requests are counted by.
    """

    def __init__(self, app: Any, options: ServerOptions, measures: Measures):
        self._app = app
        self._options = options
        self._measures = measures
        self._keys = [hashlib.sha256(key.encode()).digest() for key in options.api_keys]
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._let_through(scope, receive, sending)
        except Exception as error:
            # What the error says may hold a user's id: only where it came from is told.
            place = traceback.extract_tb(error.__traceback__)[-1]
            _log.error(
                "failed",
                extra={"error": type(error).__name__, "at": f"{place.filename}:{place.lineno}"},
            )
            if status == 0:
                await _refuse(sending, 500, "Internal error.")
        finally:
            route = getattr(scope.get("route"), "path_format", "none")
            seconds = time.perf_counter() - start
            self._measures.request(scope["method"], route, status, seconds)
            # The route, not the path: in that stand users' ids.
            _log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "ms": round(1e3 * seconds, 2),
                    **scope.get("tfrec_llm.log", {}),
                },
            )

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        caller = (scope.get("client") or ("unknown",))[0]
        if scope["path"] not in _OPEN:
            if self._keys:
                key = _key_of(headers)
                digest = hashlib.sha256(key).digest()
                # All are compared, so that the time tells nothing.
                if sum(hmac.compare_digest(digest, one) for one in self._keys) == 0:
                    await _refuse(
                        send,
                        401,
                        "An API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY.",
                        [(b"www-authenticate", b"Bearer")],
                    )
                    return
                caller = digest.hex()
            wait = self._seconds_to_wait(caller)
            if wait > 0:
                await _refuse(
                    send,
                    429,
                    f"More than {self._options.rate:g} requests a second.",
                    [(b"retry-after", str(int(wait) + 1).encode())],
                )
                return
        body = await self._read(headers, receive)
        if body is None:
            await _refuse(
                send, 413, f"A request's body has at most {self._options.max_body} bytes."
            )
            return
        await self._app(scope, _replaying(body, receive), send)

    def _seconds_to_wait(self, caller: str) -> float:
        """Takes one from the caller's bucket of requests, which fills at the allowed rate."""
        if self._options.rate is None:
            return 0.0
        now = time.monotonic()
        left, then = self._buckets.pop(caller, (float(self._options.burst), now))
        left = min(self._options.burst, left + (now - then) * self._options.rate)
        wait = max(0.0, (1.0 - left) / self._options.rate)
        self._buckets[caller] = (left if wait else left - 1.0, now)
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        return wait

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """Returns the body, or None if it is too long; no more of it is read than may be."""
        told = headers.get(b"content-length", b"0")
        if told.isdigit() and int(told) > self._options.max_body:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return bytes(body)
            body += message.get("body", b"")
            if len(body) > self._options.max_body:
                return None
            if not message.get("more_body"):
                return bytes(body)


def _key_of(headers: dict[bytes, bytes]) -> bytes:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def _replaying(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(
    send: Send, status: int, error: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps({"error": error}).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *(headers or []),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
