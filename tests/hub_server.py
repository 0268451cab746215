"""A stand-in for the Hub's API on 127.0.0.1, as far as pushing a model and loading it back ask for it.

`with Hub() as hub:` serves `hub.url`; `hub.repos` holds what was pushed; `hub.fault("PUT", "/lfs/", 500, times=2)` lets
the next two matching requests fail. `python tests/hub_server.py PORT [METHOD ROUTE FAULT TIMES]` serves one by hand.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

WRITE, READ, SCOPED, STRANGER = ("hf_" + letter * 34 for letter in "WRSX")


def user(name: str, role: str, **more) -> dict:
    """What whoami-v2 answers."""
    orgs = [{"type": "org", "name": "acme", "roleInOrg": "write"}, {"type": "org", "name": "club", "roleInOrg": "read"}]
    token = {"displayName": "test", "role": role, **more}
    return {"type": "user", "name": name, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}


SCOPES = [
    {"entity": {"type": "user", "name": "me"}, "permissions": ["repo.content.read"]},
    {"entity": {"type": "org", "name": "acme"}, "permissions": ["repo.content.read", "repo.write"]},
]
USERS = {
    WRITE: user("me", "write"),
    READ: user("me", "read"),
    SCOPED: user("me", "fineGrained", fineGrained={"global": [], "scoped": SCOPES}),
    STRANGER: user("you", "write"),
}


@dataclass
class Repo:
    """A repository: branch or refs/pr/N -> its commits, newest last, each a dict of path -> content."""

    private: bool
    branches: dict[str, list[dict[str, bytes]]] = field(default_factory=lambda: {"main": [{".gitattributes": b""}]})

    def sha(self, revision: str) -> str:
        commits = self.branches[revision]
        seed = "".join(f"{name}{hashlib.sha1(content).hexdigest()}" for name, content in sorted(commits[-1].items()))
        return hashlib.sha1(f"{len(commits)}{seed}".encode()).hexdigest()

    def find(self, revision: str) -> dict[str, bytes] | None:
        """The files at a branch or commit."""
        for name, commits in self.branches.items():
            if revision in (name, self.sha(name)):
                return commits[-1]
        return None


class Refused(Exception):
    """An answer other than 200: (status, message, X-Error-Code)."""


class Hub:
    """The server and its state."""

    def __init__(self, port: int = 0):
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[list] = []  # [method, part of the route, fault, times left, headers]
        self.released = threading.Event()  # ends the hangs
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def fault(self, method: str, route: str, fault: int | str, times: int = 99, **headers: str) -> None:
        """The next `times` requests get this status, or "drop" (no answer), "html" (a login page), "cut" (half an
        answer) or "hang"."""
        self.faults.append([method, route, fault, times, {k.replace("_", "-"): v for k, v in headers.items()}])

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What lies in a repository now."""
        return self.repos[repo].branches[revision][-1]


class Handler(BaseHTTPRequestHandler):
    """One request: the first pattern of ROUTES that fits its method and path answers."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer takes 40 ms

    def log_message(self, *words) -> None:
        """Quiet: `hub.requests` has it all."""

    def answer(self) -> None:
        """Any method."""
        self.path_only = unquote(urlsplit(self.path).path)
        self.query = parse_qs(urlsplit(self.path).query)
        self.hub.requests.append(f"{self.command} {self.path}")
        for fault in self.hub.faults:
            if fault[0] == self.command and fault[1] in self.path_only and fault[3] > 0:
                fault[3] -= 1
                return self.fail(fault[2], fault[4])
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self.chunk, b""))
        else:
            self.body = self.rfile.read(length)
        self.user = USERS.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))
        try:
            for method, pattern, function in ROUTES:
                found = re.fullmatch(pattern, self.path_only)
                if found and self.command in method.split("|"):
                    return function(self, **found.groupdict())
            raise Refused(404, f"no route {self.command} {self.path_only}", "EntryNotFound")
        except Refused as refused:
            status, message, code = refused.args
            self.send(status, {"error": message}, **{"X-Error-Code": code, "X-Error-Message": message})

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def send(self, status: int, content: object = b"", **headers: str) -> None:
        """Bytes as they are, anything else as JSON."""
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, fault: int | str, headers: dict[str, str]) -> None:
        """Go wrong, in the middle of the request's body where it has one."""
        self.close_connection = True
        if isinstance(fault, int):
            return self.send(fault, {"error": f"injected {fault}"}, Connection="close", **headers)
        if fault == "html":
            return self.send(200, b"<html>please log in</html>", Connection="close", **{"Content-Type": "text/html"})
        if fault == "cut":
            self.send(200, b"half", ETag='"0"', **headers | {"Content-Length": "4000"})
        if fault == "hang":
            self.hub.released.wait()
        self.rfile.read(min(64, int(self.headers.get("Content-Length") or 0)))
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    # ---- what the client may see and do --------------------------------------------------------------------------
    def needs_user(self) -> dict:
        if self.user is None:
            raise Refused(401, "Invalid credentials in Authorization header", "")
        return self.user

    def writable(self, name: str) -> bool:
        """Whether this token may write to a repository of this name."""
        me, owner = self.needs_user(), name.split("/")[0]
        token = me["auth"]["accessToken"]
        scopes = token.get("fineGrained", {}).get("scoped", [])
        allowed = [each["entity"]["name"] for each in scopes if "repo.write" in each["permissions"]]
        if token["role"] == "read" or (token["role"] == "fineGrained" and owner not in allowed):
            return False
        return owner == me["name"] or any(o["name"] == owner and o["roleInOrg"] == "write" for o in me["orgs"])

    def repo(self, name: str) -> Repo:
        found = self.hub.repos.get(name)
        if found is None or (found.private and (self.user is None or not self.writable(name))):
            raise Refused(404 if self.user else 401, "Repository not found", "RepoNotFound")
        return found

    def revision(self, name: str, revision: str) -> dict[str, bytes]:
        files = self.repo(name).find(revision)
        if files is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return files

    # ---- the routes --------------------------------------------------------------------------------------------
    def whoami(self) -> None:
        self.send(200, self.needs_user())

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or self.needs_user()['name']}/{asked['name']}"
        if not self.writable(name):
            raise Refused(403, f"You don't have the rights to create a model under {name.split('/')[0]!r}", "")
        answer = {"url": f"{self.hub.url}/{name}", "name": name}
        if name in self.hub.repos:
            return self.send(409, answer | {"error": "You already created this model repo"})
        self.hub.repos[name] = Repo(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        self.send(200, answer)

    def may_write(self, repo: str) -> None:
        self.repo(repo)
        if not self.writable(repo):
            raise Refused(403, "Forbidden: you must have write access", "")
        self.send(200)

    def validate(self) -> None:
        """The parts of the Hub's checks of a card that a push depends on."""
        import yaml

        front = yaml.safe_load(json.loads(self.body)["content"].split("---")[1]) or {}
        wrong = []
        for entry in front.get("model-index", []):
            for result in entry.get("results") or [{}]:
                named = {"task": ["type"], "dataset": ["name", "type"]}
                wrong += [f"{part}.{key}" for part, keys in named.items() for key in keys if not result[part].get(key)]
                wrong += ["metrics"] if not result.get("metrics") else []
                wrong += [f"metrics.{m}" for m in result["metrics"] if not m.get("type") or m.get("value") is None]
        pattern = re.compile(r"[\w.-]+(/[\w.-]+)?")
        ids = [front.get("base_model"), *front.get("datasets", [])]
        wrong += [f"{each!r} is no id" for each in ids if each and not pattern.fullmatch(each)]
        if wrong:
            return self.send(400, {"errors": [{"message": each} for each in wrong], "warnings": []})
        self.send(200, {"errors": [], "warnings": []})

    def branch(self, repo: str, name: str) -> None:
        if not self.writable(repo):
            raise Refused(403, "Forbidden", "")
        branches = self.repo(repo).branches
        if name in branches:
            raise Refused(409, "Reference already exists", "")
        branches[name] = [dict(branches["main"][-1])]
        self.send(200)

    def preupload(self, repo: str, revision: str) -> None:
        files = self.revision(repo, revision)
        answer = []
        for asked in json.loads(self.body)["files"]:
            name = asked["path"]
            large = name.endswith((".safetensors", ".onnx"))
            found = {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if name in files:
                content = files[name]
                blob = b"blob %d\0" % len(content) + content
                found["oid"] = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(blob).hexdigest()
            answer.append(found)
        self.send(200, {"files": answer})

    def batch(self, repo: str) -> None:
        self.repo(repo)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            oid, url = asked["oid"], self.hub.url
            actions = {"upload": {"href": f"{url}/lfs/{oid}"}, "verify": {"href": f"{url}/verify/{oid}"}}
            objects.append(asked if oid in self.hub.blobs else {**asked, "actions": actions})
        self.send(200, {"objects": objects, "transfer": "basic"})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content is not what was announced", "")
        self.hub.blobs[oid] = self.body
        self.send(200)

    def verify(self, oid: str) -> None:
        asked = json.loads(self.body)
        if len(self.hub.blobs.get(oid, b"")) != asked["size"]:
            raise Refused(404, "not uploaded", "")
        self.send(200, {})

    def commit(self, repo: str, revision: str) -> None:
        proposed = "create_pr" in self.query
        if not proposed and not self.writable(repo):
            raise Refused(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request", "")
        files = dict(self.revision(repo, revision))
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        branches = self.repo(repo).branches
        number = sum(name.startswith("refs/pr/") for name in branches) + 1
        target = f"refs/pr/{number}" if proposed else revision
        branches[target] = [*branches.get(target, branches[revision]), files]
        sha = self.repo(repo).sha(target)
        answer = {"commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "commitOid": sha, "success": True}
        self.send(200, answer | ({"pullRequestUrl": f"{self.hub.url}/{repo}/discussions/{number}"} if proposed else {}))

    def info(self, repo: str, revision: str = "main") -> None:
        files = self.revision(repo, revision or "main")
        found = self.repo(repo)
        sha = next(found.sha(name) for name in found.branches if found.find(name) is files)
        siblings = [{"rfilename": name} for name in files]
        answer = {"id": repo, "modelId": repo, "sha": sha, "private": found.private, "siblings": siblings, "tags": []}
        self.send(200, answer)

    def tree(self, repo: str, revision: str) -> None:
        files = self.revision(repo, revision)
        sums = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
        self.send(200, [{"type": "file", "path": n, "size": len(c), "oid": sums[n]} for n, c in files.items()])

    def of_data(self, repo: str, **more) -> None:
        """`info`, `tree` or `resolve` of a data set, which lies among the repositories as datasets/…"""
        kind = "resolve" if "name" in more else "tree" if "/tree/" in self.path_only else "info"
        getattr(self, kind)(repo=f"datasets/{repo}", **more)

    def paths(self, repo: str, revision: str) -> None:
        files = self.revision(f"datasets/{repo}", revision)
        wanted = json.loads(self.body)["paths"] if self.body.startswith(b"{") else parse_qs(self.body.decode())["paths"]
        found = [{"type": "file", "path": n, "size": len(files[n]), "oid": "0" * 40} for n in wanted if n in files]
        folders = [n for n in wanted if n not in files and any(f.startswith(n + "/") or not n for f in files)]
        self.send(200, found + [{"type": "directory", "path": n, "oid": "0" * 40} for n in folders])

    def refs(self, repo: str) -> None:
        found = self.repo(repo)
        rows = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": found.sha(n)} for n in found.branches]
        self.send(200, {"branches": rows, "converts": [], "tags": [], "pullRequests": []})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        files = self.revision(repo, revision)
        found = self.repo(repo)
        sha = next(found.sha(each) for each in found.branches if found.find(each) is files)
        if name not in files:
            return self.send(
                404, b"", **{"X-Error-Code": "EntryNotFound", "X-Error-Message": "not found", "X-Repo-Commit": sha}
            )
        content = files[name]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        linked = {"X-Linked-Etag": etag, "X-Linked-Size": str(len(content))} if name.endswith(".safetensors") else {}
        self.send(200, content, **{"ETag": etag, "X-Repo-Commit": sha, "Accept-Ranges": "none"}, **linked)


REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/pr/\d+|[^/]+)"
ROUTES = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("GET", f"/api/models/{REPO}/auth-check/write", Handler.may_write),
    ("POST", f"/api/models/{REPO}/branch/(?P<name>.+)", Handler.branch),
    ("POST", f"/api/models/{REPO}/preupload/{REVISION}", Handler.preupload),
    ("POST", f"/{REPO}.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]+)", Handler.upload),
    ("POST", "/verify/(?P<oid>[0-9a-f]+)", Handler.verify),
    ("POST", f"/api/models/{REPO}/commit/{REVISION}", Handler.commit),
    ("GET", f"/api/models/{REPO}(/revision/{REVISION})?", Handler.info),
    ("GET", f"/api/models/{REPO}/tree/{REVISION}", Handler.tree),
    ("GET", f"/api/models/{REPO}/refs", Handler.refs),
    ("GET", f"/api/datasets/{REPO}(/revision/{REVISION})?", Handler.of_data),
    ("GET", f"/api/datasets/{REPO}/tree/{REVISION}(/.*)?", Handler.of_data),
    ("POST", f"/api/datasets/{REPO}/paths-info/{REVISION}", Handler.paths),
    ("GET|HEAD", f"/datasets/{REPO}/resolve/{REVISION}/(?P<name>.+)", Handler.of_data),
    ("GET|HEAD", f"/{REPO}/resolve/{REVISION}/(?P<name>.+)", Handler.resolve),
]


if __name__ == "__main__":
    with Hub(int(sys.argv[1])) as hub:
        if len(sys.argv) > 2:
            method, route, fault, times = sys.argv[2:6]
            hub.fault(method, route, int(fault) if fault.isdigit() else fault, int(times))
        print(f"{hub.url} serves; the token that may write is {WRITE}", flush=True)
        threading.Event().wait()
