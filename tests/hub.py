"""A stand-in for the Hugging Face Hub: what is uploaded to it can be downloaded."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves the files of models on a free port of this machine.

    Attributes:
        files: Content by `user/model/file`.
        asked: Methods and paths of all requests.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refuses = 0  # status of all answers, if not 0
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        repo, found, rest = self.path.lstrip("/").partition("/resolve/")
        content = self.server.files.get(f"{repo}/{rest.partition('/')[2]}") if found else None
        if self.server.refuses:
            self.answer(self.server.refuses)
        elif content is None:
            self.answer(404, X_Error_Code="EntryNotFound" if found else "RepoNotFound")
        else:
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.answer(200, content, ETag=etag, X_Repo_Commit=COMMIT, Accept_Ranges="bytes")

    def do_POST(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.refuses:
            self.answer(self.server.refuses, b"{}")
            return
        reply: object = {}
        if self.path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            reply = {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
            }
        elif self.path.endswith("/commit/main"):
            repo = self.path.removeprefix("/api/models/").removesuffix("/commit/main")
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.server.files[f"{repo}/{value['path']}"] = base64.b64decode(value["content"])
            reply = {"commitUrl": f"{self.server.address}/{repo}/commit/{COMMIT}", "commitOid": COMMIT}
        elif self.path.endswith("/repos/create"):
            reply = {"url": f"{self.server.address}/{json.loads(body).get('organization', 'user')}/model"}
        else:
            reply = {"errors": [], "warnings": []}
        self.answer(200, json.dumps(reply).encode(), Content_Type="application/json")
