"""Remote: calls of the Hub's API with time limits and a few attempts, whose failure is one line for a person.

huggingface_hub alone has no time limit, waits as long as a Retry-After says and answers with pages of traceback. What
is fetched comes from one commit, so that a run can be repeated and a repository that moves is noticed.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_download, snapshot_download
from huggingface_hub.errors import FileMetadataError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import httpx

from hfft.messages import HfftError, HubError, announce, warn

T = TypeVar("T")
HOSTS = ("huggingface.co", "hf.co", "hub-ci.huggingface.co")
LIMITS = (10.0, 29.0, 29.0, None)  # seconds to connect, to hear something, to send a packet, to get a free connection
WAITS = (1.0, 4.0, 15.0)  # seconds before the second, the third and the last attempt
# Seconds after the first failure within which an attempt may still start, Retry-After included: with LIMITS a server
# that says nothing is given up within a minute. The second is for where there is no way to it at all.
PATIENCE, NO_WAY = 21.0, 5.5
PASSING = (408, 429, 500, 502, 503, 504)
SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.spm", "*.bpe")  # all of a model but its weights
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

    def __init__(self, why: str, wait: float | None = None, *, lost: bool = False, no_way: bool = False):
        super().__init__(why)
        self.wait, self.lost, self.patience = wait, lost, NO_WAY if no_way else PATIENCE


class Unreachable(HubError):
    """The Hub gave no answer, or none that will last: what is in the cache may be used instead."""


# What huggingface_hub and the libraries below it raise (hf_xet: PermissionError for a token that is refused). A file
# that cannot be read is another OSError and none of the Hub's trouble.
TROUBLE = (
    _Trouble, httpx.HTTPError, httpx.InvalidURL,
    ConnectionError, TimeoutError, PermissionError, RuntimeError, ValueError,
    LocalEntryNotFoundError, FileMetadataError,
)  # fmt: skip

KNOWN = (_Trouble, HfHubHTTPError, httpx.TransportError, json.JSONDecodeError, FileMetadataError)


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
        except HfftError:
            raise
        except TROUBLE as error:
            trouble, cause = _explained(error), error
        first = first or time.monotonic()
        wait = max(pause or 0.0, trouble.wait or 0.0)
        hopeless = pause is None or trouble.wait is None or (trouble.lost and not again_when_lost)
        if hopeless or time.monotonic() - first + wait > trouble.patience:
            raise (HubError if trouble.wait is None else Unreachable)(f"{what}: {trouble}{then}") from cause
        announce(f"{what}: {trouble}; trying again in {wait:.0f} s")
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _limited() -> Iterator[None]:
    """Within it the library's client has time limits and does not repeat by itself (`patiently` does)."""
    client, open_calls = get_session(), set()
    hooks = client.event_hooks

    def sent(request) -> None:
        request.extensions["timeout"] = dict(zip(("connect", "read", "write", "pool"), LIMITS, strict=True))
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

    client.event_hooks = {"request": [*hooks["request"], sent], "response": [*hooks["response"], answered]}
    try:
        yield
    finally:
        client.event_hooks = hooks


def _explained(error: BaseException) -> _Trouble:
    """The failure in words for a person; the libraries wrap it once or twice."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, KNOWN):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, _Trouble):
        return cause
    if isinstance(cause, GatedRepoError):
        page = re.sub(r"^/(api/models/|api/)?|/(resolve|revision|tree)/.*", "", cause.response.request.url.path)
        return _Trouble(f"access to it is asked for: visit {constants.ENDPOINT}/{page}, then `hf auth login`")
    if isinstance(cause, HfHubHTTPError):
        return _Trouble(_words(cause.response.status_code, cause.server_message or ""))
    if isinstance(cause, httpx.TransportError):
        no_way = isinstance(cause, httpx.ConnectError | httpx.UnsupportedProtocol)
        return _Trouble(f"no answer from {host()} ({type(cause).__name__})", 0.0, lost=True, no_way=no_way)
    if isinstance(cause, json.JSONDecodeError | FileMetadataError):
        return _Trouble(f"{host()} does not answer as the Hub does; look at HF_ENDPOINT and for a login page or proxy")
    return _Trouble(" ".join(str(error).split())[:300] or type(error).__name__)


def _words(status: int, said: str = "") -> str:
    known = WORDS.get(status, f"the Hub answered {status}" if status < 500 else f"the Hub has trouble ({status})")
    said = " ".join(said.split())[:200]
    return f"{known}: {said}" if said and status != 401 else known


def fetched(key: str, name: str, *, revision: str | None, files: tuple[str, ...] = SMALL, **options: Any) -> Path:
    """The folder of a model of the Hub at one commit, with those of these files that it has; from the cache if offline.

    `key` is what the recipe calls it, `options` are snapshot_download's. Raises HubError, one line.
    """
    what = f"{key}: {name!r} is no folder here, and the Hub did not give it"

    def call(**more: Any) -> Path:
        if not more and not re.fullmatch("[0-9a-f]{40}", revision or ""):
            HfApi(library_name="hfft").model_info(name, revision=revision)  # or the cache would be taken in silence
        more |= {"allow_patterns": list(files), "ignore_patterns": ["*/*/*"], "revision": revision}
        try:
            return Path(snapshot_download(name, **options, **more))
        except OSError as error:
            if "Consistency check failed" in str(error):  # the library's words for a file that is not whole
                raise _Trouble("a file came in part", 0.0, lost=True) from error
            raise

    if constants.is_offline_mode():
        return _cached(call, what, "it is not in the cache, and HF_HUB_OFFLINE=1 forbids to ask; check the name")
    try:
        return patiently(what, call)
    except Unreachable as error:
        folder = _cached(call, what, f"{str(error).removeprefix(what + ': ')}, and it is not in the cache")
        warn(f"{error}; the commit {folder.name} in the cache is used")
        return folder


def card(what: str, name: str, revision: str | None) -> tuple[str | None, list[str]]:
    """(commit, its README.md and settings) of a data set of the Hub; offline (revision, []), for none can be asked.

    `what` begins the line of a HubError.
    """
    if constants.is_offline_mode():
        return revision, []

    def call() -> tuple[str | None, list[str]]:
        info = HfApi(library_name="hfft").dataset_info(name, revision=revision)
        there = {each.rfilename for each in info.siblings or ()} & {"README.md", ".huggingface.yaml"}
        files = [hf_hub_download(name, each, repo_type="dataset", revision=info.sha) for each in sorted(there)]
        return info.sha, [Path(file).read_text(encoding="utf-8", errors="replace") for file in files]

    try:
        return patiently(what, call)
    except Unreachable as error:
        warn(f"{error}; a copy in the cache is used if there is one")
        return revision, []


def why(error: BaseException) -> str:
    """An error of the network or the Hub in words for a person."""
    return str(_explained(error))


def is_network(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is the network's or the Hub's."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, _Trouble | HfHubHTTPError | httpx.TransportError | FileMetadataError):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _cached(call: Callable[..., Path], what: str, why: str) -> Path:
    try:
        return call(local_files_only=True)
    except (OSError, ValueError) as error:
        raise HubError(f"{what}: {why}") from error
