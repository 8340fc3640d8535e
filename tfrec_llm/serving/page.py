"""The page at `/`: what a person sees of the server, and the routes that it needs besides."""

from importlib import resources
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import StringConstraints

from tfrec_llm.serving import messages
from tfrec_llm.serving.model_versions import ModelVersions
from tfrec_llm.serving.options import ServerOptions

_Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page/measures.js": ("measures.js", "text/javascript; charset=utf-8"),
    "/page/words.js": ("words.js", "text/javascript; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
# They hold nothing of a shop, so they are there without a key: the page asks for it.
PATHS = tuple(_FILES)

# Nothing is loaded from elsewhere, sent elsewhere, or run that was not in a file of the page.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


def page_routes() -> APIRouter:
    """Returns the routes of the page's files."""
    router = APIRouter()
    folder = resources.files("tfrec_llm.serving") / "web"
    contents = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    async def file(request: Request) -> Response:
        content, kind = contents[request.scope["route"].path]
        return Response(content, media_type=kind, headers=HEADERS)

    for path in PATHS:
        router.add_api_route(path, file, methods=["GET"], include_in_schema=False)
    return router


def item_routes(versions: ModelVersions, options: ServerOptions, name: str) -> APIRouter:
    """Returns the routes that tell of the items and of the server.

    Args:
        versions: The model.
        options: Limits.
        name: Of the model.
    """
    router = APIRouter(tags=["shop"])

    @router.get("/v1/items")
    def items(
        id: Annotated[list[_Id] | None, Query(description="Ids of items to tell of.")] = None,
        q: Annotated[
            str, Query(max_length=256, description="Words to find items by; without `id`.")
        ] = "",
        limit: Annotated[int, Query(ge=1, le=200, description="Most items to find.")] = 20,
    ) -> messages.ItemsResponse:
        """What the catalogue knows of items, by their ids or found by words, the popular first."""
        if id is not None and len(id) > options.max_history:
            raise HTTPException(400, f"id: at most {options.max_history}, got {len(id)}.")
        model = versions.get()
        facts = model.item_facts
        if id is None:
            found = facts.of(facts.search(q, min(limit, options.max_k)))
            told = [fact.item for fact in found]
        else:
            found = facts.of([model.raw_id(one) for one in id])
            told = list(id)
        return messages.ItemsResponse(
            items=[
                messages.ItemMessage(
                    item=item,
                    name=fact.name,
                    category=fact.category,
                    price=fact.price,
                    features=fact.features,
                )
                for item, fact in zip(told, found, strict=True)
            ]
        )

    @router.get("/v1/about")
    def about() -> messages.AboutResponse:
        """What a client needs to know of the server: the model, its kinds of behaviour, limits."""
        model = versions.get()
        return messages.AboutResponse(
            model=name,
            version=model.version,
            items=len(model.vocabulary),
            behaviors=model.behaviors or [],
            max_k=options.max_k,
            max_history=options.max_history,
        )

    return router
