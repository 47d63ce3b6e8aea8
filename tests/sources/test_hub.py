"""The hub against a fake of it on this machine: whole, resumed, cut short, wrong, moved, absent."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scrimp.errors import Refused, ScrimpError
from scrimp.progress import SILENT
from scrimp.sources import hub
from scrimp.sources.pull import pull

WEIGHTS = bytes(range(256)) * 4000
CONFIG = b'{"model_type": "llama"}'
COMMIT = "0123456789abcdef"


class FakeHub(ThreadingHTTPServer):
    """Serves ``files``; ``faults`` name what goes wrong."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
        self.promised: dict[str, bytes] = {}  #: what the listing describes instead of the file
        self.cut_after: int | None = None  #: bytes of the body after which the connection is closed
        self.ranges = True
        self.redirect: str | None = None
        self.listing: bytes | None = None
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.requests.append((path, self.headers.get("Range")))
        if path.startswith("/api/models/owner/name/revision/main"):
            self.answer(200, self.server.listing or listing(self.server))
        elif path.startswith(f"/owner/name/resolve/{COMMIT}/") and self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect + path.replace("/owner/", "/cdn/"))
            self.end_headers()
        elif (name := path.rsplit("/", 1)[-1]) in self.server.files and path.startswith(("/owner/name/", "/cdn/name/")):
            self.send_file(self.server.files[name])
        else:
            self.answer(404, b"")

    def send_file(self, body: bytes) -> None:
        wanted = self.headers.get("Range")
        if wanted is None or not self.server.ranges:
            self.answer(200, body)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.answer(206, body[start:], {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        is_file = len(body) > 10_000
        self.wfile.write(body[: self.server.cut_after] if is_file else body)

    def log_message(self, format: str, *args: Any) -> None: ...


def listing(server: FakeHub) -> bytes:
    siblings: list[dict[str, Any]] = []
    for name, served in server.files.items():
        content = server.promised.get(name, served)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        siblings.append(entry)
    return json.dumps({"sha": COMMIT, "siblings": siblings}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    fake = FakeHub()
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("SCRIMP_HUB", fake.url + "/")
    monkeypatch.setenv("SCRIMP_HOME", str(tmp_path / "home"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    yield fake
    fake.shutdown()
    fake.server_close()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.startswith(".")}


def test_a_model_is_brought_once_and_then_needs_no_network(server: FakeHub, tmp_path: Path) -> None:
    pulled = pull("owner/name")
    assert pulled.path == tmp_path / "home" / "owner--name"
    assert (pulled.path / "model.safetensors").read_bytes() == WEIGHTS
    assert names(pulled.path) == {"config.json", "model.safetensors"}
    assert pulled.sha256["model.safetensors"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert (pulled.status, pulled.bytes) == ("downloaded", len(WEIGHTS) + len(CONFIG))
    asked = len(server.requests)
    again = pull("owner/name")
    assert (again.status, again.bytes, again.sha256) == ("present", pulled.bytes, pulled.sha256)
    assert len(server.requests) == asked


def test_a_changed_file_is_brought_again(server: FakeHub) -> None:
    path = pull("owner/name").path
    (path / "model.safetensors").write_bytes(b"something else")
    assert pull("owner/name").status == "downloaded"
    assert (path / "model.safetensors").read_bytes() == WEIGHTS


def test_code_pickles_and_other_copies_are_left_there(server: FakeHub) -> None:
    code = ["pytorch_model.bin", "modeling_llama.py", "onnx/model.onnx", "tf_model.h5", "tokenizer.pkl"]
    copies = ["model-00001-of-00002.safetensors", "consolidated.safetensors"]
    unwanted = [*code, *copies, "../config.json", ".gitattributes", "README.md"]
    wanted = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
    server.files |= dict.fromkeys((*unwanted, *wanted), b"x")
    assert names(pull("owner/name").path) == {"config.json", "model.safetensors", *wanted}


def test_shards_are_brought_with_their_index(server: FakeHub) -> None:
    del server.files["model.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    server.files |= {shards[0]: WEIGHTS, shards[1]: WEIGHTS[::-1], "model.safetensors.index.json": b"{}"}
    assert names(pull("owner/name").path) == {"config.json", "model.safetensors.index.json", *shards}


def test_a_download_that_was_cut_goes_on_where_it_stopped(server: FakeHub, tmp_path: Path) -> None:
    server.cut_after = 300_000
    with pytest.raises(ScrimpError, match=r"model\.safetensors stopped after 300\.0 kB of 1\.0 MB"):
        pull("owner/name")
    home = tmp_path / "home" / "owner--name"
    assert "model.safetensors" not in names(home)
    server.cut_after = None
    assert pull("owner/name").status == "downloaded"
    assert (home / "model.safetensors").read_bytes() == WEIGHTS
    assert server.requests[-1][1] == "bytes=300000-"
    assert names(home) == {"config.json", "model.safetensors"}


def test_a_hub_that_cannot_resume_begins_again(server: FakeHub, tmp_path: Path) -> None:
    server.cut_after, server.ranges = 300_000, False
    with pytest.raises(ScrimpError, match="stopped after"):
        pull("owner/name")
    server.cut_after = None
    path = pull("owner/name").path
    assert (path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_wrong_hash_is_refused_and_deleted(server: FakeHub, tmp_path: Path) -> None:
    server.promised["model.safetensors"] = WEIGHTS[:-1] + b"!"
    with pytest.raises(Refused, match=r"model\.safetensors is not the file that the hub promised"):
        pull("owner/name")
    assert names(tmp_path / "home" / "owner--name") == {"config.json"}


def test_a_wrong_small_file_is_refused_by_its_git_hash(server: FakeHub) -> None:
    server.promised["config.json"] = CONFIG[:-1] + b"]"
    with pytest.raises(Refused, match=r"config\.json is not the file"):
        pull("owner/name")


def test_a_body_longer_than_promised_is_refused_and_not_kept(server: FakeHub, tmp_path: Path) -> None:
    server.promised["model.safetensors"] = WEIGHTS[:1000]
    with pytest.raises(Refused, match="is not the file"):
        pull("owner/name")
    assert names(tmp_path / "home" / "owner--name") == {"config.json"}


def test_redirects_to_a_content_server_are_followed_with_the_range(server: FakeHub) -> None:
    server.redirect, server.cut_after = server.url, 300_000
    with pytest.raises(ScrimpError, match="stopped after"):
        pull("owner/name")
    server.cut_after = None
    path = pull("owner/name").path
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert server.requests[-1] == ("/cdn/name/resolve/0123456789abcdef/model.safetensors", "bytes=300000-")


def test_a_redirect_away_from_encryption_is_refused() -> None:
    from urllib.request import Request

    with pytest.raises(Refused, match="not encrypted"):
        hub._NoDowngrade().redirect_request(
            Request("https://a.example/x"),
            None,  # type: ignore[arg-type]
            302,
            "",
            None,  # type: ignore[arg-type]
            "http://b.example/x",
        )


def test_an_unknown_model_is_one_sentence_and_leaves_no_directory(server: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ScrimpError, match=r"127\.0\.0\.1:\d+ answered 404 for owner/other") as error:
        pull("owner/other")
    assert "spelling" in (error.value.hint or "")
    assert not (tmp_path / "home" / "owner--other").exists()


def test_no_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCRIMP_HOME", str(tmp_path))
    monkeypatch.setenv("SCRIMP_HUB", "http://127.0.0.1:1")
    with pytest.raises(ScrimpError, match=r"127\.0\.0\.1:1 could not be reached"):
        pull("owner/name")


def test_a_repository_without_safe_weights_is_refused(server: FakeHub) -> None:
    server.files = {"config.json": CONFIG, "pytorch_model.bin": b"pickle"}
    with pytest.raises(Refused, match=r"has no config\.json with \.safetensors weights"):
        pull("owner/name")


@pytest.mark.parametrize(
    "listing", [b"<html>", b"[]", b"{}", b'{"sha": 1, "siblings": [1]}', b'{"sha": "1", "siblings": 5}']
)
def test_a_listing_that_is_none_is_refused(server: FakeHub, listing: bytes) -> None:
    server.listing = listing
    with pytest.raises(Refused, match="did not describe owner/name"):
        pull("owner/name")


def test_a_full_part_file_is_verified_without_asking_for_more(server: FakeHub, tmp_path: Path) -> None:
    (file,) = [file for file in hub.files("owner/name", "main") if file.name == "model.safetensors"]
    part = tmp_path / f"model.safetensors.{hashlib.sha256(file.url.encode()).hexdigest()[:12]}.part"
    part.write_bytes(WEIGHTS)
    asked = len(server.requests)
    assert hub.download(file, tmp_path, SILENT) == hashlib.sha256(WEIGHTS).hexdigest()
    assert len(server.requests) == asked
