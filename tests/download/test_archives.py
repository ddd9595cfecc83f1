"""Hostile, damaged and odd archives: nothing outside the target, one line for each refusal."""

import io
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.download import archives
from ctscan.download.archives import unpack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FILES = {
    "COVID/Covid (1).png": os.urandom(3000),
    "non-COVID/Größe [ü].png": bytes(range(256)) * 80,
    "inner.zip": b"PK\x05\x06",
}
Pack = Callable[[Path, dict[str, bytes]], None]
NEEDS_TAR = pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python refuses every tar")


def pack_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
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
ALL_PACKERS = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=NEEDS_TAR) if ".tar" in name else name for name in PACKERS]
)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def attempt(source: Path, target: Path) -> str:
    """What `unpack` says of `source`; empty where it is content."""
    try:
        unpack(source, target)
    except UserError as error:
        return str(error)
    return ""


def refusal(source: Path, target: Path) -> str:
    message = attempt(source, target)
    assert message.startswith(f"{source}: ")
    assert "\n" not in message
    return message


@ALL_PACKERS
def test_unpacks_every_kind(tmp_path: Path, name: str) -> None:
    PACKERS[name](tmp_path / name, FILES)
    unpack(tmp_path / name, tmp_path / "target")
    assert contents(tmp_path / "target") == FILES


@pytest.mark.parametrize("member", ["../out.png", "a/../../out.png", "/out.png"])
def test_nothing_lands_outside_the_target(tmp_path: Path, member: str) -> None:
    for name in ("a.zip", "a.tar"):
        source = tmp_path / name / "in" / name
        source.parent.mkdir(parents=True)
        PACKERS[name](source, {member: b"x"})
        attempt(source, source.parent / "target")
        outside = {path for path in contents(tmp_path / name) if not path.startswith("in/target/")}
        assert outside == {f"in/{name}"}
    assert not Path("/out.png").exists()


@NEEDS_TAR
@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "FIFOTYPE"])
def test_tar_member_that_is_not_a_file(tmp_path: Path, kind: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("COVID/link")
        info.type, info.linkname = getattr(tarfile, kind), "COVID/a.png"
        archive.addfile(info)
    message = refusal(tmp_path / "a.tar", tmp_path / "target")
    assert "'COVID/link' is a link, a device or a pipe" in message


def test_python_without_extraction_filters_refuses_a_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    assert "take Python 3.11.4 or later" in refusal(tmp_path / "a.tar", tmp_path / "target")


def test_link_in_a_zip_becomes_a_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "../../out")
    unpack(tmp_path / "a.zip", tmp_path / "target")
    assert not (tmp_path / "target" / "link").is_symlink()


@pytest.mark.parametrize("limit", ["MAX_MEMBERS", "MAX_BYTES"])
@pytest.mark.parametrize("name", ["a.zip", pytest.param("a.tar.gz", marks=NEEDS_TAR)])
def test_bomb_is_refused_by_what_it_declares(
    tmp_path: Path, name: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(map(len, FILES.values()))
    PACKERS[name](tmp_path / name, FILES)
    monkeypatch.setattr(archives, limit, {"MAX_MEMBERS": len(FILES), "MAX_BYTES": size}[limit])
    unpack(tmp_path / name, tmp_path / "whole")
    PACKERS[name](tmp_path / name, {**FILES, "one more": b"x"})
    assert "unpacks to more than" in refusal(tmp_path / name, tmp_path / "target")
    assert "one more" not in contents(tmp_path / "target")
    assert name != "a.zip" or not (tmp_path / "target").exists()


def test_zip_that_declares_too_little_is_damaged(tmp_path: Path) -> None:
    pack_zip(tmp_path / "a.zip", {"a": b"x" * 5000})
    raw = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(raw.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    assert "Bad CRC-32" in refusal(tmp_path / "a.zip", tmp_path / "target")
    assert sum(map(len, contents(tmp_path / "target").values())) <= 50


@ALL_PACKERS
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.9])
def test_cut_short(tmp_path: Path, name: str, keep: float) -> None:
    PACKERS[name](tmp_path / name, {f"COVID/{n}.png": os.urandom(3000) for n in range(60)})
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: int(len(raw) * keep)])
    assert "get it again" in refusal(tmp_path / name, tmp_path / "target")


@NEEDS_TAR
def test_tar_cut_between_members(tmp_path: Path) -> None:
    PACKERS["a.tar"](tmp_path / "a.tar", {"a": b"x" * 512, "b": b"y" * 512})
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1024])
    assert "no end mark" in refusal(tmp_path / "a.tar", tmp_path / "target")


def test_encrypted(tmp_path: Path) -> None:
    pack_zip(tmp_path / "a.zip", {"COVID/a.png": b"x"})
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    message = refusal(tmp_path / "a.zip", tmp_path / "target")
    assert "is encrypted" in message
    assert "unpack it yourself and give the folder" in message


def packed(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        PACKERS[name](Path(folder, name), FILES)
        return Path(folder, name).read_bytes()


SEEDS = {name: packed(name) for name in PACKERS}
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)), min_size=1, max_size=6
)


@settings(max_examples=200, deadline=timedelta(seconds=10))
@given(name=st.sampled_from(sorted(PACKERS)), edits=EDITS, part=st.sampled_from(["whole", "head", "end"]))
def test_mutated_archives(name: str, edits: list[tuple[float, bytes]], part: str) -> None:
    """They unpack or end in one line, and leave no file beside the target and no link in it."""
    raw = bytearray(SEEDS[name])
    # A zip's directory lies at its end, a tar's first header at its start: there the readers branch.
    first, last = {"whole": (0, len(raw)), "head": (0, 600), "end": (len(raw) - 300, len(raw))}[part]
    for place, content in edits:
        start = first + int(place * (last - first))
        raw[start : start + len(content)] = content
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "deep", "in", name)
        source.parent.mkdir(parents=True)
        source.write_bytes(raw)
        target = source.parent / "target"
        with suppress(OSError):  # from a name that the file system refuses
            message = attempt(source, target)
            assert "\n" not in message
            message.encode()
        assert [path for path in Path(folder).rglob("*") if path.is_file() and target not in path.parents] == [source]
        assert not any(path.is_symlink() for path in target.rglob("*"))
