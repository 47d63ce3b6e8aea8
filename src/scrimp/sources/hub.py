"""Files of a model hub over HTTPS: what a repository holds, and downloads that resume and are verified.

Only configuration, tokenizer and ``.safetensors`` files are ever fetched: no pickles, no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from scrimp.errors import Refused, ScrimpError
from scrimp.progress import Progress
from scrimp.sizes import format_bytes

DEFAULT_HUB = "https://huggingface.co"
_TIMEOUT_S = 30
_BLOCK = 1 << 20
_LISTING_BYTES = 20_000_000
_TEXT_FILES = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "model.safetensors.index.json", "modules.json", "sentence_bert_config.json",
    "1_Pooling/config.json",
}  # fmt: skip
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,200}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file at one commit, and what it must be."""

    name: str
    url: str
    bytes: int
    sha256: str | None  #: of large files
    git_blob: str | None  #: the SHA-1 that git gives a file: of small ones


def hub_url() -> str:
    """``$SCRIMP_HUB`` (a mirror), else the hub that users expect."""
    return (os.environ.get("SCRIMP_HUB") or DEFAULT_HUB).rstrip("/")


def files(repo: str, revision: str) -> list[HubFile]:
    """The files of ``repo`` that a model needs, pinned to the commit that ``revision`` is now."""
    base = hub_url()
    with _open(f"{base}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true", repo) as response:
        raw = response.read(_LISTING_BYTES + 1)
    try:
        listing = json.loads(raw) if len(raw) <= _LISTING_BYTES else None
        commit = str(listing["sha"])  # type: ignore[index]
        found = [_file(base, repo, commit, entry) for entry in listing["siblings"]]  # type: ignore[index]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(
            f"{base} did not describe {repo} in a way scrimp understands.", hint="is SCRIMP_HUB right?"
        ) from None
    wanted = _wanted([file for file in found if file is not None])
    names = {file.name for file in wanted}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise Refused(
            f"{repo} has no config.json with .safetensors weights.", hint="scrimp reads no pickles and runs no code"
        )
    return wanted


def download(file: HubFile, directory: Path, progress: Progress) -> str:
    """Bring ``file`` into ``directory``, going on where an earlier try stopped. Returns its SHA-256.

    The bytes so far lie in ``<name>.<commit part>.part``; the name appears when length and hash are right.
    """
    target = directory / file.name
    target.parent.mkdir(exist_ok=True)
    part = directory / f"{file.name}.{hashlib.sha256(file.url.encode()).hexdigest()[:12]}.part"
    if target.is_file() and target.stat().st_size == file.bytes and (digest := _digest(file, target)) is not None:
        return digest
    have = part.stat().st_size if part.exists() else 0
    if have > file.bytes:
        part.unlink()
        have = 0
    progress.start(file.name[:24], file.bytes)
    try:
        if have < file.bytes or not part.exists():
            _receive(file, part, have, progress)
    finally:
        progress.finish()
    size = part.stat().st_size
    if size < file.bytes:
        raise ScrimpError(f"{file.name} stopped after {format_bytes(size)} of {format_bytes(file.bytes)}.",
                          hint="the same command goes on from there")  # fmt: skip
    digest = _digest(file, part)
    if digest is None:
        part.unlink()
        raise Refused(f"{file.name} is not the file that the hub promised: its hash is wrong.",
                      hint="what was downloaded has been deleted; pull it again")  # fmt: skip
    part.replace(target)
    return digest


def _receive(file: HubFile, part: Path, have: int, progress: Progress) -> None:
    with _open(file.url, file.name, start=have) as response:
        resumed = response.status == 206 and (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
        have = have if resumed else 0
        progress.advance(have, format_bytes(have))
        with part.open("ab" if resumed else "wb") as target:
            try:
                # never more than was promised: one byte further and it is refused
                while have <= file.bytes and (block := response.read(min(_BLOCK, file.bytes + 1 - have))):
                    target.write(block)
                    have += len(block)
                    progress.advance(len(block), format_bytes(have))
            except (HTTPException, ConnectionError, TimeoutError):
                pass  # what came is kept; the length tells
            target.flush()
            os.fsync(target.fileno())


def _digest(file: HubFile, path: Path) -> str | None:
    """The SHA-256 of ``path`` if it is what the hub promised, else None."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            sha256.update(block)
            blob.update(block)
    right = sha256.hexdigest() == file.sha256 if file.sha256 else blob.hexdigest() == file.git_blob
    return sha256.hexdigest() if right else None


def _file(base: str, repo: str, commit: str, entry: dict[str, Any]) -> HubFile | None:
    name, lfs = entry["rfilename"], entry.get("lfs") or {}
    if not isinstance(name, str) or not (_SAFE_NAME.fullmatch(name) or name in _TEXT_FILES):
        return None  # files in folders, and names that are no plain file names
    size, sha256, blob = lfs.get("size", entry.get("size")), lfs.get("sha256"), entry.get("blobId")
    if not isinstance(size, int) or size < 0 or not (sha256 or blob):
        return None
    return HubFile(name, f"{base}/{repo}/resolve/{quote(commit, safe='')}/{quote(name)}", size, sha256, blob)


def _wanted(found: list[HubFile]) -> list[HubFile]:
    """Texts first. Of several copies of the weights (one file, shards, other runtimes' names) only one set."""
    texts = sorted((file for file in found if file.name in _TEXT_FILES), key=lambda file: file.name)
    single = [file for file in found if file.name == "model.safetensors"]
    shards = sorted((file for file in found if _SHARD.fullmatch(file.name)), key=lambda file: file.name)
    return texts + (single or shards or [file for file in found if file.name.endswith(".safetensors")])


class _NoDowngrade(HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise Refused(f"{req.host} redirects to {newurl[:80]}, which is not encrypted.", hint="do not use this hub")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _open(url: str, what: str, start: int = 0) -> Iterator[HTTPResponse]:
    request = Request(url, headers={"User-Agent": "scrimp", **({"Range": f"bytes={start}-"} if start else {})})
    host = urlsplit(url).netloc
    try:
        response: HTTPResponse = build_opener(_NoDowngrade).open(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        hints = {401: "it may be private, or misspelled", 403: "its owner may ask you to accept terms first",
                 404: "check the spelling: owner/name", 429: "the hub asks to wait; try later"}  # fmt: skip
        hint = hints.get(error.code, "try later")
        raise ScrimpError(f"{host} answered {error.code} for {what}.", hint=hint) from None
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise ScrimpError(f"{host} could not be reached: {reason}.",
                          hint="is there a network? a path or a catalogue name needs no hub") from None  # fmt: skip
    with response:
        yield response
