"""Hostile, damaged and odd archives: nothing outside the target, one line for each refusal."""

import io
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.download import archives
from ctscan.download.archives import unpack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FILES = {
    "COVID/Covid (1).png": b"one" * 400,
    "non-COVID/Größe [ü].png": bytes(range(256)) * 80,
    "inner.zip": b"PK\x05\x06",
}
Pack = Callable[[Path, dict[str, bytes]], None]


def pack_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def pack_tar(mode: str) -> Pack:
    def pack(path: Path, files: dict[str, bytes]) -> None:
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    return pack


PACKERS: dict[str, Pack] = {
    "a.zip": pack_zip,
    "a.tar": pack_tar("w"),
    "a.tar.gz": pack_tar("w:gz"),
    "a.tar.bz2": pack_tar("w:bz2"),
    "a.tar.xz": pack_tar("w:xz"),
}
ALL_PACKERS = pytest.mark.parametrize("name", PACKERS)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def refusal(source: Path, target: Path) -> str:
    with pytest.raises(UserError) as caught:
        unpack(source, target)
    message = str(caught.value)
    assert str(source) in message
    assert "\n" not in message
    return message


@ALL_PACKERS
def test_unpacks_every_kind(tmp_path: Path, name: str) -> None:
    PACKERS[name](tmp_path / name, FILES)
    unpack(tmp_path / name, tmp_path / "target")
    assert contents(tmp_path / "target") == FILES


def test_folder_comes_without_hidden_entries(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, content in {**FILES, ".DS_Store": b"x", ".git/config": b"x", "COVID/.hidden": b"x"}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "COVID" / "copy.png").symlink_to("Covid (1).png")
    unpack(source, tmp_path / "target")
    assert contents(tmp_path / "target") == {**FILES, "COVID/copy.png": FILES["COVID/Covid (1).png"]}
    assert not (tmp_path / "target/COVID/copy.png").is_symlink()


@ALL_PACKERS
@pytest.mark.parametrize(
    "member",
    ["../out.png", "a/../../out.png", "/out.png", "C:\\out.png", "C:out.png", "..\\out.png", "\\\\host\\x\\out.png"],
)
def test_path_out_of_the_target(tmp_path: Path, name: str, member: str) -> None:
    source = tmp_path / "in" / name
    source.parent.mkdir()
    PACKERS[name](source, {member: b"x"})
    message = refusal(source, tmp_path / "in" / "target")
    assert repr(member) in message
    assert "leads out of the folder" in message
    assert contents(tmp_path) == {f"in/{name}": source.read_bytes()}


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE"])
def test_tar_member_that_is_no_file(tmp_path: Path, kind: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("COVID/link")
        info.type, info.linkname = getattr(tarfile, kind), "../../out"
        archive.addfile(info)
    message = refusal(tmp_path / "a.tar", tmp_path / "target")
    assert "'COVID/link' is a link, a device or a pipe" in message


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_zip_member_that_is_no_file(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("COVID/link")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "../../out")
    assert "'COVID/link' is a link, a device or a pipe" in refusal(tmp_path / "a.zip", tmp_path / "target")


def test_folder_links_out_of_it_and_to_folders(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    for index, goal in enumerate(["../secret", "../absent", "."]):
        source = tmp_path / f"source{index}"
        source.mkdir()
        (source / "link").symlink_to(goal)
        message = refusal(source, tmp_path / f"target{index}")
        assert "'link' is a link to a folder or out of it" in message


def test_folder_with_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    os.mkfifo(tmp_path / "source" / "pipe")
    assert "'pipe' is no regular file" in refusal(tmp_path / "source", tmp_path / "target")
    assert "is a device or a pipe" in refusal(tmp_path / "source" / "pipe", tmp_path / "target")


@ALL_PACKERS
def test_too_many_members(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    PACKERS[name](tmp_path / name, FILES)
    unpack(tmp_path / name, tmp_path / "target")
    PACKERS[name](tmp_path / name, {**FILES, "one more": b""})
    assert "more than 3 files" in refusal(tmp_path / name, tmp_path / "second")
    assert "more than 3 files" not in refusal(
        tmp_path / "target", tmp_path / "target"
    )  # a folder with 2 folders counts 5


@ALL_PACKERS
def test_declares_too_many_bytes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(map(len, FILES.values()))
    PACKERS[name](tmp_path / name, FILES)
    monkeypatch.setattr(archives, "MAX_BYTES", size)
    unpack(tmp_path / name, tmp_path / "target")
    monkeypatch.setattr(archives, "MAX_BYTES", size - 1)
    assert f"more than {size - 1} bytes" in refusal(tmp_path / name, tmp_path / "second")


def test_holds_more_bytes_than_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows while it is read, as any source could that lies about its size."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.png").write_bytes(b"x" * 100)
    monkeypatch.setattr(archives, "MAX_BYTES", 50)
    honest = archives._folder_members
    monkeypatch.setattr(archives, "_folder_members", lambda path: (member._replace(size=1) for member in honest(path)))
    assert "more than 50 bytes" in refusal(source, tmp_path / "target")


def test_zip_that_declares_too_little_is_damaged(tmp_path: Path) -> None:
    pack_zip(tmp_path / "a.zip", {"a": b"x" * 5000})
    raw = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(raw.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    assert "damaged or cut short" in refusal(tmp_path / "a.zip", tmp_path / "target")
    assert sum(map(len, contents(tmp_path / "target").values())) <= 50


def test_tar_header_that_claims_the_memory(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**21
        archive.addfile(info, io.BytesIO(bytes(2**21)))
    assert "damaged" in refusal(tmp_path / "a.tar.gz", tmp_path / "target")


@ALL_PACKERS
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_cut_short(tmp_path: Path, name: str, keep: float) -> None:
    PACKERS[name](tmp_path / name, {f"COVID/{n}.png": os.urandom(3000) for n in range(60)})
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: int(len(raw) * keep)])
    assert "damaged" in refusal(tmp_path / name, tmp_path / "target")


def test_tar_cut_between_members(tmp_path: Path) -> None:
    PACKERS["a.tar"](tmp_path / "a.tar", {"a": b"x" * 512, "b": b"y" * 512})
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1024])
    assert "damaged or cut short (no end mark)" in refusal(tmp_path / "a.tar", tmp_path / "target")


def test_encrypted(tmp_path: Path) -> None:
    pack_zip(tmp_path / "a.zip", {"COVID/a.png": b"x"})
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    assert "'COVID/a.png' is encrypted; decrypt" in refusal(tmp_path / "a.zip", tmp_path / "target")


def test_same_name_twice_and_file_as_folder(tmp_path: Path) -> None:
    for index, names in enumerate([("a", "./a"), ("a", "a/b"), ("a/b", "a")]):
        pack_zip(tmp_path / f"{index}.zip", dict.fromkeys(names, b"x"))
        assert "comes twice" in refusal(tmp_path / f"{index}.zip", tmp_path / f"target{index}")


def test_text_and_absent_and_too_long_name(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("<html>log in first</html>" * 100)
    assert "is no zip, tar or folder, or is damaged" in refusal(tmp_path / "a.zip", tmp_path / "target")
    assert "no such file or folder" in refusal(tmp_path / "absent.zip", tmp_path / "target")
    pack_zip(tmp_path / "b.zip", {"x" * 300: b"x"})
    assert "cannot be unpacked: File name too long" in refusal(tmp_path / "b.zip", tmp_path / "second")


def check_contained(name: str, raw: bytes) -> None:
    """`unpack` ends well or in a `UserError`, and leaves nothing beside the target."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "deep", "in", name)
        source.parent.mkdir(parents=True)
        source.write_bytes(raw)
        message = ""
        try:
            unpack(source, source.parent / "target")
        except UserError as error:
            message = str(error)
        assert "\n" not in message
        message.encode()
        target = source.parent / "target"
        outside = [path for path in Path(folder).rglob("*") if path.is_file() and target not in path.parents]
        assert outside == [source]
        assert not any(path.is_symlink() for path in target.rglob("*"))


def packed(name: str, files: dict[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        PACKERS[name](Path(folder, name), files)
        return Path(folder, name).read_bytes()


SEEDS = {name: packed(name, FILES) for name in PACKERS}
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)), min_size=1, max_size=6
)


@settings(max_examples=250, deadline=timedelta(seconds=10))
@given(name=st.sampled_from(sorted(PACKERS)), edits=EDITS, keep=st.floats(0.1, 1), head=st.booleans())
def test_mutated_archives(name: str, edits: list[tuple[float, bytes]], keep: float, head: bool) -> None:
    raw = bytearray(SEEDS[name])
    # Many cases cut nothing, half edit the headers at the start alone, where the parsers branch.
    reach = 600 if head else len(raw)
    for place, content in edits:
        start = int(place * min(reach, len(raw)))
        raw[start : start + len(content)] = content
    check_contained(name, bytes(raw[: int(len(raw) * keep)] if keep < 0.5 else raw))


@settings(max_examples=120, deadline=timedelta(seconds=10))
@given(edits=EDITS)
def test_mutated_zip_directory(edits: list[tuple[float, bytes]]) -> None:
    raw = bytearray(SEEDS["a.zip"])
    directory = raw.index(b"PK\x01\x02")
    for place, content in edits:
        start = directory + int(place * (len(raw) - directory))
        raw[start : start + len(content)] = content
    check_contained("a.zip", bytes(raw))


PARTS = st.lists(
    st.sampled_from(["..", ".", "", "/", "\\", "C:", "a", "b.png", "target", "ü", "\x01", " ", "//"]),
    min_size=1,
    max_size=6,
)


@settings(max_examples=120, deadline=timedelta(seconds=10))
@given(parts=PARTS, separator=st.sampled_from(["/", "\\", ""]), name=st.sampled_from(["a.zip", "a.tar"]))
def test_hostile_names(parts: list[str], separator: str, name: str) -> None:
    check_contained(name, packed(name, {separator.join(parts): b"x", "fine.png": b"y"}))
