"""Remote: calls of the Hub's API with time limits and a few attempts, whose failure is one line for a person.

huggingface_hub alone has no time limit, waits as long as a Retry-After says and answers with pages of traceback.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeVar
from urllib.parse import urlsplit

from huggingface_hub import constants, get_session, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx

from hfft.messages import HubError, announce

T = TypeVar("T")
HOSTS = ("huggingface.co", "hf.co", "hub-ci.huggingface.co")
LIMITS = (10.0, 30.0, 30.0, None)  # seconds to connect, to hear something, to send a packet, to get a free connection
WAITS = (1.0, 4.0, 15.0)  # seconds before the second, the third and the last attempt
PATIENCE = 30.0  # seconds after the first failure within which an attempt may still start, Retry-After included
PASSING = (408, 429, 500, 502, 503, 504)
WORDS = {
    401: "the token is missing or not valid (401); run `hf auth login` or set HF_TOKEN",
    403: "the token may not do that (403)",
    404: "it is not there, or hidden from this token (404)",
    429: "too many requests (429)",
}


class _Trouble(Exception):
    """A failed call. `wait`: seconds to wait at least before another attempt, None where none would help.

    `lost`: there was no answer at all, so the call may have been done.
    """

    def __init__(self, why: str, wait: float | None = None, *, lost: bool = False):
        super().__init__(why)
        self.wait, self.lost = wait, lost


# What huggingface_hub and the libraries below it raise (hf_xet: PermissionError for a token that is refused). A file
# that cannot be read is another OSError and none of the Hub's trouble.
TROUBLE = (
    _Trouble, httpx.HTTPError, httpx.InvalidURL,
    ConnectionError, TimeoutError, PermissionError, RuntimeError, ValueError,
)  # fmt: skip


def reachable(what: str) -> None:
    """Raises HubError, before any call, where there can be none: offline, no token, or uploads that would go astray."""
    if constants.is_offline_mode():
        raise HubError(f"{what}: HF_HUB_OFFLINE=1 forbids it; unset it, or push later")
    if get_token() is None:
        raise HubError(f"{what}: there is no token; run `hf auth login` or set HF_TOKEN")
    if host() not in HOSTS and not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet"):
        # Uploads go to Xet's own servers whatever HF_ENDPOINT is; the switch is read when huggingface_hub is imported.
        raise HubError(f"{what}: {constants.ENDPOINT} is not the Hub's own server: set HF_HUB_DISABLE_XET=1 at start")


def host() -> str:
    """The name of the server that plays the Hub."""
    return urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT


def patiently(what: str, call: Callable[[], T], *, then: str = "", again_when_lost: bool = True) -> T:
    """The answer of `call`, which asks the Hub; tried again, announced, where the failure may pass.

    `again_when_lost`: also where no answer came, so that the call may have been done. Raises HubError, one line: `what`
    failed, why, and `then`.
    """
    first = None
    for pause in (*WAITS, None):
        try:
            with _limited():
                return call()
        except TROUBLE as error:
            trouble, cause = _explained(error), error
        first = first or time.monotonic()
        wait = max(pause or 0.0, trouble.wait or 0.0)
        hopeless = pause is None or trouble.wait is None or (trouble.lost and not again_when_lost)
        if hopeless or time.monotonic() - first + wait > PATIENCE:
            raise HubError(f"{what}: {trouble}{then}") from cause
        announce(f"{what}: {trouble}; trying again in {wait:.0f} s")
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _limited() -> Iterator[None]:
    """Within it the library's client has time limits and does not repeat by itself (`patiently` does)."""
    client, open_calls = get_session(), set()
    timeout, hooks = client.timeout, client.event_hooks

    def sent(request) -> None:
        call = (request.method, str(request.url))
        if call in open_calls:  # the library repeats what got no answer
            raise _Trouble(f"the connection to {host()} broke", 0.0, lost=True)
        open_calls.add(call)

    def answered(response) -> None:
        open_calls.discard((response.request.method, str(response.request.url)))
        if response.status_code in PASSING:
            after = response.headers.get("Retry-After", "")
            asked = f"; it asks to wait {after} s" if after.isdigit() else ""
            raise _Trouble(_words(response.status_code) + asked, float(after) if asked else 0.0)

    client.timeout = LIMITS
    client.event_hooks = {"request": [*hooks["request"], sent], "response": [*hooks["response"], answered]}
    try:
        yield
    finally:
        client.timeout, client.event_hooks = timeout, hooks


def _explained(error: BaseException) -> _Trouble:
    """The failure in words for a person; the libraries wrap it once or twice."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, _Trouble | HfHubHTTPError | httpx.TransportError | json.JSONDecodeError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, _Trouble):
        return cause
    if isinstance(cause, HfHubHTTPError):
        return _Trouble(_words(cause.response.status_code, cause.server_message or ""))
    if isinstance(cause, httpx.TransportError):
        return _Trouble(f"no answer from {host()} ({type(cause).__name__})", 0.0, lost=True)
    if isinstance(cause, json.JSONDecodeError):
        return _Trouble(f"{host()} does not answer as the Hub does; look at HF_ENDPOINT and for a login page or proxy")
    return _Trouble(" ".join(str(error).split())[:300] or type(error).__name__)


def _words(status: int, said: str = "") -> str:
    known = WORDS.get(status, f"the Hub answered {status}" if status < 500 else f"the Hub has trouble ({status})")
    said = " ".join(said.split())[:200]
    return f"{known}: {said}" if said and status != 401 else known
