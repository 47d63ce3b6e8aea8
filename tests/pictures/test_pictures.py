"""Loaders of pictures: tiny made files, hostile ones, and the real ones where they are."""

import gzip
import io
import struct
import tarfile
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from scrimp.errors import Refused, ScrimpError, UsageError
from scrimp.pictures import SETS, load
from scrimp.pictures.idx import read_idx
from scrimp.pictures.pictures import resize


def idx(shape, content):
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + content


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8), rng.integers(0, 10, 20, dtype=np.uint8)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/t10k-images-idx3-ubyte").write_bytes(idx((20, 28, 28), images.tobytes()))
    (tmp_path / "mnist/t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx((20,), labels.tobytes())))
    return tmp_path, images, labels


def test_idx_files_are_read_packed_or_not(mnist):
    directory, images, labels = mnist
    found = load("mnist:test", directory)
    np.testing.assert_array_equal(found.images, images[..., None])
    np.testing.assert_array_equal(found.labels, labels)
    assert found.names == tuple("0123456789")


def test_the_environment_names_the_directory(mnist, monkeypatch):
    monkeypatch.setenv("SCRIMP_DATA", str(mnist[0]))
    assert len(load("mnist:test")) == 20


@pytest.mark.parametrize(("old", "new"), [((7, 7), (4, 4)), ((8, 6), (2, 3)), ((5, 3), (4, 7)), ((2, 2), (5, 5))])
def test_a_new_pixel_is_the_exact_mean_of_what_it_covers(old, new):
    image = np.random.default_rng(1).integers(0, 256, (2, *old, 2), dtype=np.uint8)
    made = resize(image, *new)
    for n, y, x, c in np.ndindex(made.shape):
        total = Fraction(0)
        for row, column in np.ndindex(old):
            share = Fraction(1)
            for at, i, before, after in ((y, row, old[0], new[0]), (x, column, old[1], new[1])):
                overlap = min(Fraction(i + 1, before), Fraction(at + 1, after)) - max(
                    Fraction(i, before), Fraction(at, after)
                )
                share *= max(overlap, 0) * after
            total += share * int(image[n, row, column, c])
        assert made[n, y, x, c] == (total + Fraction(1, 2)).__floor__()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no IDX"),
        (idx((2, 2), b"1234"), "no IDX"),
        (idx((0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), b""), "are possible"),
        (idx((0, 2, 2), b""), "are possible"),
        (idx((1 << 20, 32, 32), b"few"), "holds 3"),
        (idx((1, 2, 2), b"12345"), "holds more"),
        (b"\x1f\x8bnonsense that is no gzip", "can't be unpacked"),
        (gzip.compress(idx((1, 2, 2), b"1234"), mtime=0)[:-6], "can't be unpacked"),
    ],
)
def test_hostile_idx_files_are_refused_without_memory(tmp_path, content, words):
    path = tmp_path / "file"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(Refused, match=words):
        read_idx(path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def test_labels_that_are_none_are_refused(mnist):
    directory, _, labels = mnist
    path = directory / "mnist/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx((20,), bytes([10]) + labels.tobytes()[1:])))
    with pytest.raises(Refused, match="a label is 10"):
        load("mnist:test", directory)
    path.write_bytes(gzip.compress(idx((19,), labels.tobytes()[1:])))
    with pytest.raises(Refused, match="19 labels"):
        load("mnist:test", directory)


@pytest.mark.parametrize(
    "spec", ["", "mnist", "mnist:all", "mnits:test", "mnist:test@16", "mnist:test@0x5", "mnist:test@16x999"]
)
def test_other_names_are_explained(spec, mnist):
    with pytest.raises(UsageError) as told:
        load(spec, mnist[0])
    assert told.value.hint
    if spec == "mnits:test":
        assert told.value.hint == "Did you mean 'mnist'?"


def test_missing_data_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("SCRIMP_DATA", raising=False)
    with pytest.raises(ScrimpError, match="no directory of data is named"):
        load("mnist:test")
    with pytest.raises(ScrimpError, match="mnist does not exist"):
        load("mnist:test", tmp_path)


def jpeg(color, side=32):
    image = pytest.importorskip("PIL.Image").new("RGB", (side, side), color)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRIMP_HOME", str(tmp_path / "home"))
    return tmp_path / SETS["cifar10-jpeg"].place


def test_an_archive_of_jpegs_is_decoded_once_and_sorted_fairly(cifar, monkeypatch):
    members = [("test/dog/0001.jpg", jpeg((0, 0, 200))), ("test/dog/0000.jpg", jpeg((0, 200, 0))),
               ("test/cat/0001.jpg", jpeg((90, 90, 90))), ("test/cat/0000.jpg", jpeg((200, 0, 0))),
               ("README.md", b"words"), ("train/truck/0000.jpg", jpeg((1, 1, 1)))]  # fmt: skip
    archive(cifar, members)
    found = load("cifar10-jpeg:test", cifar.parent)
    assert found.labels.tolist() == [3, 5, 3, 5]
    means = found.images.astype(float).mean(axis=(1, 2))
    np.testing.assert_allclose(
        means, [(200, 0, 0), (0, 200, 0), (90, 90, 90), (0, 0, 200)], atol=3
    )  # 4:2:0, quality 95
    monkeypatch.setattr("scrimp.pictures.jpeg_archive._decode", lambda *_: pytest.fail("decoded twice"))
    np.testing.assert_array_equal(load("cifar10-jpeg:test", cifar.parent).images, found.images)


def test_a_damaged_cache_is_made_again(cifar):
    archive(cifar, [("test/dog/0001.jpg", jpeg((0, 0, 200)))])
    before = load("cifar10-jpeg:test", cifar.parent)
    [kept] = (cifar.parent / "home/pictures").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:1000])
    np.testing.assert_array_equal(load("cifar10-jpeg:test", cifar.parent).images, before.images)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("test/dog/0000.jpg", b"no picture")], "can't be decoded"),
        ([("test/dog/0000.jpg", None)], "31 × 31"),
        ([("test/dog/0000.jpg", b"")], "has 0 bytes"),
        ([("test/dog/0000.jpg", bytes(1 << 17))], "131,072 bytes"),
        ([("../test/dog/0000.jpg", b"x")], "holds no test"),
        ([], "holds no test"),
    ],
)
def test_hostile_archives_are_refused(cifar, members, words):
    archive(cifar, [(name, jpeg((0, 0, 0), 31) if content is None else content) for name, content in members])
    with pytest.raises(Refused, match=words):
        load("cifar10-jpeg:test", cifar.parent)
    assert not list(cifar.parent.glob("home/**/*.npz"))


@pytest.mark.parametrize("side", [12_000, 65_535])
def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(cifar, recwarn, side):
    """Pillow warns of the smaller one, and raises an error of its own kind for the larger."""
    raw = bytearray(jpeg((0, 0, 0)))
    at = raw.index(b"\xff\xc0") + 5
    raw[at : at + 4] = side.to_bytes(2, "big") * 2
    archive(cifar, [("test/dog/0000.jpg", bytes(raw))])
    with pytest.raises(Refused, match=r"test/dog/0\.jpg can't be decoded: Image size"):
        load("cifar10-jpeg:test", cifar.parent)
    assert not recwarn.list


def test_an_archive_of_too_many_bytes_or_pictures_is_refused(cifar, monkeypatch):
    with cifar.open("wb") as file:
        file.truncate(1 << 40)  # sparse: it is not read
    with pytest.raises(Refused, match="more than"):
        load("cifar10-jpeg:test", cifar.parent)
    archive(cifar, [(f"test/dog/{i}.jpg", jpeg((0, 0, 0))) for i in range(4)])
    monkeypatch.setattr("scrimp.pictures.jpeg_archive._MOST", 3)
    with pytest.raises(Refused, match="more than 3 pictures"):
        load("cifar10-jpeg:test", cifar.parent)


def test_pictures_are_read_where_nothing_can_be_kept(cifar):
    archive(cifar, [("test/dog/0000.jpg", jpeg((0, 0, 200)))])
    (cifar.parent / "home").write_text("a file, where a directory should be")
    assert len(load("cifar10-jpeg:test", cifar.parent)) == 1


def test_an_archive_that_unpacks_without_end_is_refused(cifar, monkeypatch):
    """A header that claims a name of four gigabytes."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    with gzip.open(cifar, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(9):
            file.write(bytes(1 << 20))
    monkeypatch.setattr("scrimp.pictures.jpeg_archive._UNPACKED", 1 << 23)
    with pytest.raises(Refused, match="unpacks to more"):
        load("cifar10-jpeg:test", cifar.parent)


def test_a_file_that_is_no_archive_is_refused(cifar):
    for content in (b"", b"words", gzip.compress(b"words" * 1000, mtime=0)[:50], gzip.compress(bytes(range(256)) * 9)):
        cifar.write_bytes(content)
        with pytest.raises(Refused):
            load("cifar10-jpeg:test", cifar.parent)


def test_the_real_mnist(shared_data):
    found = load("mnist:test", shared_data("mnist").parent)
    assert found.images.shape == (10000, 28, 28, 1)
    assert found.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert load("mnist:train", shared_data("mnist").parent).labels[:5].tolist() == [5, 0, 4, 1, 9]
