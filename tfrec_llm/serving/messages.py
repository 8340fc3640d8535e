"""What requests and responses of the server look like: the source of its OpenAPI document."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)

# Names are written into indexes and logs' labels, so they have an end.
_Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Number = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Id = Annotated[_Name | _Number, Field(description="A raw id, text or number, as in the log.")]
Behavior = Annotated[str, StringConstraints(max_length=64)]

Value = Annotated[str, StringConstraints(max_length=64)] | StrictBool | StrictInt | StrictFloat


class Message(BaseModel):
    """A message whose fields are all known: a misspelt one is told, not passed over."""

    model_config = ConfigDict(extra="forbid")


class Whom(Message):
    """The user of a request."""

    user: Id | None = Field(None, description="Whose history is looked up.")
    history: list[Id] | None = Field(
        None, description="Item ids, oldest first, in place of the history that is kept."
    )
    behaviors: list[Behavior] | None = Field(
        None, description="Kinds of the behaviours of `history`, as many."
    )

    @model_validator(mode="after")
    def _fits(self) -> "Whom":
        if self.behaviors is not None and len(self.behaviors) != len(self.history or ()):
            raise ValueError("behaviors and history must be of one length")
        return self


class RecommendRequest(Whom):
    """Asks for the best items of a user."""

    k: int = Field(10, ge=1, lt=2**31, strict=True, description="Items to recommend.")
    exclude: list[Id] = Field([], description="Item ids not to recommend.")
    filter_seen: bool | None = Field(
        None, description="Whether to leave out what the history holds; as exported where null."
    )

    profile: dict[Behavior, Value | list[Value]] | None = Field(
        None,
        max_length=32,
        description="What is known of the user, by feature; counts without a history.",
    )
    context: dict[Behavior, Behavior] | None = Field(
        None,
        max_length=8,
        description="Values of the catalogue's columns, such as the page's category; counts "
        "without a history.",
    )


class ScoreRequest(Whom):
    """Asks for the scores of items for a user."""

    items: list[Id] = Field(min_length=1, description="Item ids to score.")


class ScoredItem(Message):
    """An item and its score; no score where the item is not known."""

    item: Id
    score: float | None


class RecommendResponse(Message):
    """Items and which way they were made."""

    items: list[ScoredItem]
    source: str = Field(
        description="`model`, `profile`, `popularity`, or `fallback` where the model or the store "
        "did not answer in time."
    )
    model: str
    version: int


class PredictRequest(Message):
    """Asks a signature, in TensorFlow Serving's form: by `instances` or by `inputs`."""

    signature_name: str = Field("serving_default", description="Such as `recommend` or `score`.")
    instances: list[Any] | None = Field(
        None,
        description="The users, each with its inputs by name.",
        examples=[[{"history": ["A13"]}]],
    )
    inputs: Any = Field(None, description="The inputs by name, each of all users.")


class EventMessage(Message):
    """Something a user did."""

    user: Id
    item: Id
    behavior: Behavior = Field("", description="Its kind, such as `view`.")
    time: datetime | None = Field(
        None, description="ISO 8601 or seconds since 1970; when it arrives where null."
    )
    id: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        None, description="An event is kept once for a user and an id, so it may be sent again."
    )

    def seconds(self, now: float) -> float:
        """Returns its time in seconds since 1970; without a zone it is UTC."""
        if self.time is None:
            return now
        time = self.time if self.time.tzinfo is not None else self.time.replace(tzinfo=UTC)
        return time.timestamp()


class EventsRequest(Message):
    """Events to keep, all or none."""

    events: list[EventMessage] = Field(min_length=1)


class EventsResponse(Message):
    """How many events are new, and how many were there already."""

    accepted: int
    duplicates: int


class KeptEvent(Message):
    """An event as it is kept."""

    id: str
    item: str
    behavior: str
    time: datetime


class UserResponse(Message):
    """What is kept of a user, oldest first."""

    user: str
    events: list[KeptEvent]


class ErasedResponse(Message):
    """How many events of a user were erased."""

    erased: int


class Traffic(Message):
    """Shares of the users by version; null gives all the newest."""

    shares: dict[int, Annotated[float, Field(ge=0, le=1)]] | None


class ErrorResponse(Message):
    """What is wrong, in TensorFlow Serving's form."""

    error: str


class Health(Message):
    """Whether the server is up."""

    status: str
    detail: dict[str, Any] = {}


class ItemMessage(Message):
    """What the catalogue knows of an item; nulls and no features where it knows nothing."""

    item: str | int
    name: str | None
    category: str | None
    price: float | None
    features: dict[str, Any]


class ItemsResponse(Message):
    """Items with what is known of them."""

    items: list[ItemMessage]


class AboutResponse(Message):
    """What a client needs to know."""

    model: str
    version: int = Field(description="The newest that is loaded.")
    items: int
    behaviors: list[str] = Field(description="Kinds of behaviour that the model reads.")
    max_k: int
    max_history: int
