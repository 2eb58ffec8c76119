"""The session of a browser."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from sds_clip.app.keys import Scope
from sds_clip.app.schemas.common import Answer, Body, example


class SignIn(Body):
    """The body of POST /session."""

    model_config = example({"key": "sdsclip_..."})

    key: Annotated[str, Field(description="An API key.")]


class SessionKey(Answer):
    """The key with which a browser is signed in."""

    name: str
    scopes: list[Scope] = Field(description="What the key allows. A changed scope counts at once.")


class SessionInfo(BaseModel):
    """Whether the caller may use the service, and for what.

    A page shows its sign-in view if `signed_in` is false. If it is true and `key` is null, everything is allowed.
    """

    object: Literal["session"] = "session"
    needs_key: bool = Field(
        description="Whether the service has API keys. Without keys, nobody signs in, and everything is allowed."
    )
    signed_in: bool = Field(description="Whether the caller may use the service. Without keys, this is true.")
    key: SessionKey | None = Field(None, description="The caller's key. Without keys, it is null.")
    csrf_token: str | None = Field(
        None,
        description="What the browser has to send as X-CSRF-Token with every request but GET, HEAD and OPTIONS. It is "
        "null if the caller has no session.",
    )
    expires_at: float | None = Field(
        None, description="When the session ends, in seconds since 1970. It is null if there is no session."
    )
