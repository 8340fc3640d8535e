"""The server's routes."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import tfrec_llm
from tfrec_llm.errors import DataError, StoreError
from tfrec_llm.serving import tensorflow_serving
from tfrec_llm.serving.batching import OverloadedError
from tfrec_llm.serving.exported_model import ExportedModel
from tfrec_llm.serving.histories import Event, HistoryStore
from tfrec_llm.serving.model_versions import ModelVersions
from tfrec_llm.serving.options import ServerOptions
from tfrec_llm.serving.recording import Recorder
from tfrec_llm.serving.service import Answer, Asked, RecommendationService
from tfrec_llm.serving.traffic import write_traffic
from tfrec_llm.serving.user_key import UserKey

try:
    from fastapi import FastAPI, HTTPException, Path, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, PlainTextResponse
    from starlette.exceptions import HTTPException as StarletteHTTPException

    from tfrec_llm.serving import messages
    from tfrec_llm.serving.gate import Gate
    from tfrec_llm.serving.measures import Measures
    from tfrec_llm.serving.page import item_routes, page_routes
except ImportError as error:
    raise ImportError(
        "The server needs FastAPI, uvicorn and prometheus-client: pip install 'tfrec-llm[serve]'."
    ) from error

# An event may come from a clock that is fast, but not by more than this many seconds.
_AHEAD = 86_400.0

_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": messages.ErrorResponse, "description": words}
    for code, words in {
        400: "The request cannot be read or breaks a limit.",
        401: "No API key, or a wrong one.",
        404: "There is no such model, version or route.",
        409: "The folder of the versions cannot be written to.",
        413: "The body is too long.",
        422: "A field is missing or wrong.",
        429: "Too many requests.",
        503: "Too much waits already, or the store is out of reach; send it again later.",
    }.items()
}
_UserId = Annotated[str, Path(min_length=1, max_length=256)]
_Version = Annotated[int, Path(ge=0, lt=2**63)]
# Clients of TensorFlow Serving do not always say that they send JSON, so the body is read as it is.
_PREDICT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": messages.PredictRequest.model_json_schema()}},
    }
}


def create_app(
    versions: ModelVersions,
    store: HistoryStore,
    options: ServerOptions | None = None,
    *,
    upkeep: Sequence[Callable[[], Any]] = (),
    recorder: Recorder | None = None,
) -> FastAPI:
    """Returns the server as an ASGI application.

    Args:
        versions: The model.
        store: The histories; closed with the application.
        options: Keys, limits and names.
        upkeep: What else to do, in a thread, whenever the folder is looked at for new versions,
            such as `CatalogueWatch(...).check`.
        recorder: Writes down lists and events for `tfrec_llm.monitoring`; closed with the
            application. None records nothing.

    Raises:
        ImportError: If the extra `[serve]` is not installed.
    """
    options = options or ServerOptions()
    name = options.name or versions.folder.resolve().name
    model_name = Annotated[str, Path(json_schema_extra={"enum": [name]})]
    measures = Measures()
    service = RecommendationService(
        versions,
        store,
        timeout=options.timeout,
        max_batch=options.max_batch,
        max_history=options.max_history,
        observe_batch=measures.batch,
    )
    user_key = UserKey(options.log_key)
    if recorder is not None:
        recorder.observe = measures.recorded
    stopping = False

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal stopping
        service.follow(options.poll_seconds, *upkeep)
        yield
        stopping = True
        await service.close()
        if recorder is not None:
            await asyncio.to_thread(recorder.close)

    app = FastAPI(
        title="tfrec_llm",
        version=tfrec_llm.__version__,
        description="Recommendations in real time.",
        lifespan=lifespan,
        responses=_ERRORS,
    )

    def note(request: Request, user: str | None = None, **facts: Any) -> None:
        """Adds facts to the request's line in the log."""
        if user is not None:
            facts["user"] = user_key.of(user)
        request.scope["tfrec_llm.log"] = facts

    def limited(what: str, count: int, most: int) -> None:
        if count > most:
            raise HTTPException(400, f"{what}: at most {most}, got {count}.")

    async def answered(request: Request, asked: Asked) -> Response:
        limited("history", len(asked.history or ()), options.max_history)
        start = time.perf_counter()
        found: Answer = await service.answer(asked)
        if recorder is not None and asked.items is None:
            recorder.add_list(
                user=asked.user,
                version=found.version,
                source=found.source,
                seconds=time.perf_counter() - start,
                history=found.history,
                behaviors=found.behaviors,
                items=found.items,
                scores=found.scores,
            )
        measures.recommendation(found.source, found.version)
        note(request, asked.user, source=found.source, version=found.version)
        return JSONResponse(
            {
                "items": [
                    {"item": item, "score": score}
                    for item, score in zip(found.items, found.scores, strict=True)
                ],
                "source": found.source,
                "model": name,
                "version": found.version,
            }
        )

    @app.post("/v1/recommend", tags=["shop"], response_model=messages.RecommendResponse)
    async def recommend(request: Request, body: messages.RecommendRequest) -> Response:
        """The best items for a user, by what the user did until now."""
        limited("k", body.k, options.max_k)
        limited("exclude", len(body.exclude), options.max_history)
        return await answered(
            request,
            Asked(
                user=_text(body.user),
                history=body.history,
                behaviors=body.behaviors,
                k=body.k,
                exclude=body.exclude,
                filter_seen=body.filter_seen,
                profile=body.profile,
                context=body.context,
            ),
        )

    @app.post("/v1/score", tags=["shop"], response_model=messages.RecommendResponse)
    async def score(request: Request, body: messages.ScoreRequest) -> Response:
        """The scores of given items for a user, in the order they were given."""
        limited("items", len(body.items), options.max_history)
        return await answered(
            request,
            Asked(
                user=_text(body.user),
                history=body.history,
                behaviors=body.behaviors,
                items=body.items,
            ),
        )

    @app.post("/v1/events", tags=["shop"])
    async def events(request: Request, body: messages.EventsRequest) -> messages.EventsResponse:
        """Keeps what users did. Once this has answered, no event is lost."""
        limited("events", len(body.events), options.max_events)
        now = time.time()
        kept = [
            Event(
                id=event.id or uuid.uuid4().hex,
                user=str(event.user),
                item=str(event.item),
                time=event.seconds(now),
                behavior=event.behavior,
            )
            for event in body.events
        ]
        if any(event.time > now + _AHEAD for event in kept):
            raise HTTPException(400, "An event is more than a day in the future.")
        if any(event.time < 0 for event in kept):
            raise HTTPException(400, "An event is older than 1970.")
        new = await service.add(kept)
        accepted = sum(new)
        if recorder is not None:
            recorder.add_events([event for event, is_new in zip(kept, new, strict=True) if is_new])
        measures.events(accepted, len(new) - accepted)
        note(request, events=len(new))
        return messages.EventsResponse(accepted=accepted, duplicates=len(new) - accepted)

    @app.get("/v1/users/{user:path}", tags=["shop"])
    async def read_user(request: Request, user: _UserId) -> messages.UserResponse:
        """What is kept of a user."""
        note(request, user)
        found = await service.history(user)
        return messages.UserResponse(
            user=user,
            events=[
                messages.KeptEvent(
                    id=event.id,
                    item=event.item,
                    behavior=event.behavior,
                    time=datetime.fromtimestamp(event.time, UTC),
                )
                for event in found
            ],
        )

    @app.delete("/v1/users/{user:path}", tags=["shop"])
    async def erase_user(request: Request, user: _UserId) -> messages.ErasedResponse:
        """Erases what is kept of a user, in the store and in the record."""
        note(request, user)
        erased = await service.erase(user)
        if recorder is not None:
            await asyncio.to_thread(recorder.erase, user)
        return messages.ErasedResponse(erased=erased)

    def version_of(model: str, version: int | None = None) -> ExportedModel:
        if model != name:
            raise HTTPException(404, f"Could not find any versions of model {model[:80]}")
        try:
            return versions.get(version)
        except LookupError as error:
            raise HTTPException(404, str(error)) from error

    async def predicted(request: Request, model: ExportedModel) -> Response:
        signature, inputs, by_rows = tensorflow_serving.read_request(
            await request.body(),
            model,
            max_rows=options.max_rows,
            max_length=options.max_history,
            max_k=options.max_k,
        )
        outputs = await service.predict(model, signature, inputs)
        note(request, signature=signature, version=model.version)
        return JSONResponse(tensorflow_serving.response(outputs, by_rows))

    @app.post("/v1/models/{model}:predict", tags=["TensorFlow Serving"], openapi_extra=_PREDICT)
    async def predict(request: Request, model: model_name) -> Response:
        """Calls a signature of the newest version."""
        return await predicted(request, version_of(model))

    @app.post(
        "/v1/models/{model}/versions/{version}:predict",
        tags=["TensorFlow Serving"],
        openapi_extra=_PREDICT,
    )
    async def predict_version(request: Request, model: model_name, version: _Version) -> Response:
        """Calls a signature of a version."""
        return await predicted(request, version_of(model, version))

    @app.get("/v1/models/{model}/metadata", tags=["TensorFlow Serving"])
    async def model_metadata(model: model_name) -> Response:
        """Signatures of the newest version."""
        return JSONResponse(tensorflow_serving.metadata(name, version_of(model)))

    @app.get("/v1/models/{model}/versions/{version}/metadata", tags=["TensorFlow Serving"])
    async def version_metadata(model: model_name, version: _Version) -> Response:
        """Signatures of a version."""
        return JSONResponse(tensorflow_serving.metadata(name, version_of(model, version)))

    @app.get("/v1/models/{model}/versions/{version}", tags=["TensorFlow Serving"])
    async def version_status(model: model_name, version: _Version) -> Response:
        """How a version stands."""
        version_of(model)
        states = [one for one in versions.states() if one.version == version]
        if not states:
            raise HTTPException(404, f"Could not find version {version} of model {name}")
        return JSONResponse(tensorflow_serving.status(states))

    @app.get("/v1/models/{model}", tags=["TensorFlow Serving"])
    async def model_status(model: model_name) -> Response:
        """How the versions stand."""
        version_of(model)
        return JSONResponse(tensorflow_serving.status(versions.states()))

    @app.get("/v1/traffic", tags=["operation"])
    async def traffic() -> messages.Traffic:
        """Which share of the users each version answers."""
        return messages.Traffic(shares=versions.shares)

    @app.put("/v1/traffic", tags=["operation"])
    async def set_traffic(request: Request, body: messages.Traffic) -> messages.Traffic:
        """Sets the shares: a canary, an A/B test, or the way back to an older version."""
        there = {one.name for one in versions.folder.iterdir()}
        missing = [one for one in body.shares or {} if str(one) not in there]
        if missing:
            raise HTTPException(400, f"There is no version {missing[0]}.")
        try:
            await service.in_thread(write_traffic, versions.folder, body.shares)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        except OSError as error:
            raise HTTPException(409, "The folder of the versions cannot be written to.") from error
        await service.in_thread(versions.refresh)
        note(request, shares=versions.shares)
        return messages.Traffic(shares=versions.shares)

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> messages.Health:
        """Whether the process answers."""
        return messages.Health(status="ok")

    @app.get("/readyz", tags=["operation"])
    async def readyz() -> Response:
        """Whether it may be sent requests: not while it stops."""
        return JSONResponse({"status": "stopping" if stopping else "ok"}, 503 if stopping else 200)

    @app.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """What is measured, for Prometheus."""
        return Response(measures.text(versions.shares), media_type="text/plain; version=0.0.4")

    def told(status: int, error: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": error}, status, headers)

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> Response:
        return told(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(tensorflow_serving.RequestError)
    async def unreadable(request: Request, error: tensorflow_serving.RequestError) -> Response:
        return told(400, str(error))

    @app.exception_handler(DataError)
    async def unknown(request: Request, error: DataError) -> Response:
        return told(400, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        # Where and why, without what was sent.
        place = ".".join(str(part) for part in first["loc"] if part != "body")[:200]
        return told(422, f"{place}: {first['msg']}" if place else first["msg"])

    @app.exception_handler(StoreError)
    async def unavailable(request: Request, error: Exception) -> Response:
        return told(503, "What is kept of users is out of reach now.", {"Retry-After": "1"})

    @app.exception_handler(OverloadedError)
    async def overloaded(request: Request, error: Exception) -> Response:
        return told(503, "Too many requests wait already.", {"Retry-After": "1"})

    app.include_router(item_routes(versions, options, name))
    app.include_router(page_routes())
    app.add_middleware(Gate, options=options, measures=measures)
    app.state.service = service
    return app


def _text(user: str | int | None) -> str | None:
    return None if user is None else str(user)
