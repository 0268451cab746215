"""Hub: the run is pushed to the Hugging Face Hub, where `from_pretrained("user/name")` loads it and its card is shown.

The token comes from HF_TOKEN or `hf auth login`, never from a recipe. Whether it may write is asked before training.
https://huggingface.co/docs/huggingface_hub/guides/upload
"""

import shlex
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from hfft import __version__, faults, publish, remote
from hfft.messages import HubError, InputError, announce, first_line


def hub(
    result,
    folder,
    *,
    repo: str,
    private: bool | None = None,
    revision: str | None = None,
    pull_request: bool = False,
    what: str | None = None,
) -> str:
    """Push the run in one commit to `repo` (user/name), made where it is not there yet; returns the commit's address.

    `private`: of a new repository; by default as the Hub makes it, which for a user is public. `revision`: a branch,
    made where it is not there. `pull_request`: propose the commit, also to somebody else's repository. `what`: an
    export of the run ("merge") to push instead of its model. Raises HubError; the run on the disk stays as it is.
    """
    options = {"repo": repo, "private": private, "revision": revision, "pull_request": pull_request, "what": what}
    then = _again(result.folder, options)
    api, there = _allowed(repo, private, foreign=pull_request, then=then)
    files = publish.files(result, repo, revision=revision, what=what)
    if not there:
        new = remote.patiently(
            f"export: hub: making {repo}", lambda: api.create_repo(repo, private=private, exist_ok=True), then=then
        )
        announce(f"hub: made {new} ({_visibility(private)})")
    if revision and not revision.startswith("refs/"):
        remote.patiently(
            f"export: hub: branch {revision} of {repo}",
            lambda: api.create_branch(repo, branch=revision, exist_ok=True),
            then=then,
        )
    announce(f"hub: pushing {len(files)} files, {_megabytes(files):,.1f} MB, to {repo}")
    address = _push(api, files, repo, revision, pull_request, then)
    announce(f"hub: pushed: {address}")
    return address


def ready(recipe, *, repo: str, private: bool | None = None, what: str | None = None, **options) -> None:
    """Before training: whether the push can be done. Raises InputError or HubError."""
    before = [part.name for part in recipe.export]
    before = before[: next(i for i, part in enumerate(recipe.export) if part.options.get("what") == what)]
    if what is not None and what not in before:
        raise InputError(f"export: hub: what: {what!r} is no export before it; write export: [{what}, {{hub: …}}]")
    _allowed(repo, private, foreign=False)


def _push(api, files: dict[str, Path | bytes], repo: str, revision: str | None, propose: bool, then: str) -> str:
    """The address of the one commit, or of the pull request."""

    def call():
        faults.point("push")
        old = publish.stale(api.list_repo_files(repo, revision=revision), files)
        added = [CommitOperationAdd(name, content) for name, content in files.items()]
        removed = [CommitOperationDelete(name) for name in old]
        message = f"Run of hfft {__version__}"
        return api.create_commit(repo, [*added, *removed], commit_message=message, revision=revision, create_pr=propose)

    # a commit whose answer was lost is found done at the second attempt; a pull request would be opened twice
    done = remote.patiently(f"export: hub: pushing to {repo}", call, then=then, again_when_lost=not propose)
    return str(done.pr_url or done.commit_url)


def _allowed(repo: str, private: bool | None, *, foreign: bool, then: str = "") -> tuple[HfApi, bool]:
    """(the API, whether the repository is there), where the token may write to it."""
    _check_name(repo)
    remote.reachable("export: hub")
    api = HfApi(library_name="hfft", library_version=__version__)
    asking = f"export: hub: {repo}"
    me = remote.patiently("export: hub: whose token it is", api.whoami, then=then)
    _check_token(me, repo)
    mine = _is_mine(me, repo, foreign=foreign)

    def look():
        try:
            return api.model_info(repo)
        except RepositoryNotFoundError:
            return None

    info = remote.patiently(asking, look, then=then)
    if info is None and not mine:
        raise HubError(f"{asking}: there is no such repository to propose a change to")
    if info is not None and private is not None and info.private is not private:
        now, asked = _visibility(info.private), _visibility(private)
        raise HubError(f"{asking} is {now} already, not {asked}; change that on its settings page or leave private out")
    if info is not None and mine:
        remote.patiently(asking, lambda: api.auth_check(repo, write=True), then=then)
    return api, info is not None


def _check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"export: hub: repo: {first_line(error)}") from error
    if repo.count("/") != 1:
        raise InputError(f"export: hub: repo: {repo!r} has no owner; write user/{repo}")


def _check_token(me: dict, repo: str) -> None:
    """Refuse a token that only reads; a fine-grained one tells for which owners and repositories it writes."""
    token = me.get("auth", {}).get("accessToken", {})
    name = token.get("displayName", "?")
    if token.get("role") == "read":
        raise HubError(
            f"export: hub: the token {name!r} only reads; make one of the role 'write' (settings, access tokens)"
        )
    if token.get("role") != "fineGrained":
        return
    entries = token.get("fineGrained", {}).get("scoped", [])
    writes = [entry["entity"].get("name") for entry in entries if "repo.write" in entry.get("permissions", [])]
    if not {repo, repo.split("/")[0]} & set(writes):
        allowed = ", ".join(str(each) for each in writes) or "nothing"
        raise HubError(
            f"export: hub: the fine-grained token {name!r} may write to {allowed}, not to {repo}; give it repo.write"
        )


def _is_mine(me: dict, repo: str, *, foreign: bool) -> bool:
    """Whether the owner is the user or an organisation that lets them write. Raises HubError where it must be."""
    owner, name = repo.split("/")
    groups = [org["name"] for org in me.get("orgs", []) if org.get("roleInOrg") not in ("read", "no_access")]
    mine = owner in (me["name"], *groups)
    if not mine and not foreign:
        others = f"nor an organisation you may write to ({', '.join(groups) or 'there are none'})"
        raise HubError(
            f"export: hub: {owner} is not you ({me['name']}) {others}; write repo: {me['name']}/{name} (a pull request "
            f"to somebody else's repository: `hfft export RUN hub repo={repo} pull_request=true`, after training)"
        )
    return mine


def _again(folder: Path, options: dict) -> str:
    """How to push again, for the end of a message."""
    given = [f"{key}={str(value).lower() if value is True else value}" for key, value in options.items() if value]
    given += ["private=false"] if options["private"] is False else []
    command = shlex.join(["hfft", "export", str(folder), "hub", *given])
    return f"; the model is whole in {folder}, push it again with `{command}`"


def _visibility(private: bool | None) -> str:
    return {None: "public, unless the owner's settings say otherwise", True: "private", False: "public"}[private]


def _megabytes(files: dict[str, Path | bytes]) -> float:
    return sum(len(each) if isinstance(each, bytes) else each.stat().st_size for each in files.values()) / 1e6
