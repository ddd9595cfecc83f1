"""Compare data/ with the release that data.dvc pins, and keep a copy of it in DVC's cache."""

import re
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import SCRATCH

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.build import build
from dvc_data.hashfile.transfer import transfer

PIN = Path("data.dvc")
KEPT = SCRATCH / PIN  # a pin of what `keep` saw last that differs from the release
SHOWN = 10  # names of each kind of difference

# The study's release, as counted on a complete copy: its md5, and the colour type of each file.
_RELEASE_MD5 = "eccd5eb6f4dd22efa0f3d9af78e5d6ab.dir"
_RGB, _RGBA = 2, 6  # byte 25 of a PNG (its specification, section 11.2.1)
_RELEASE = {f"COVID/Covid ({n}).png": _RGB if n <= 413 else _RGBA for n in range(1, 1253)} | {
    f"non-COVID/Non-Covid ({n}).png": _RGBA for n in range(1, 1231) if n != 151
}
_NO_LISTING = "the listing that the pin names isn't in DVC's cache, so the bytes can't be compared one by one"


def describe(data: Path) -> tuple[bool, list[str]]:
    """Whether `data` is byte for byte what data.dvc pins, and lines that say so or list what differs.

    Where DVC's cache holds the pin's listing, files are compared by md5. Without it, those of the study's release are
    compared by name and by PNG colour type: a file of another type than the release's has changed for certain; of the
    rest only the total is known.

    Raises:
        UserError: data.dvc is absent or pins no folder, this is no DVC repository, or `data` can't be read.
    """
    try:
        with Repo() as repo:
            pin = repo.stage.load_one(str(PIN)).outs[0]
            if not (pin.hash_info and pin.hash_info.isdir and pin.meta):
                raise UserError(f"{PIN}: pins no folder; restore it with `git checkout {PIN}`")
            release = f"the pinned release ({pin.meta.nfiles} files, {pin.meta.size} bytes)"
            if not data.is_dir():
                return False, [f"{data}/ is absent; {PIN} pins {release}"]
            _, meta, tree = build(pin.cache, str(data.resolve()), pin.fs, "md5", dry_run=True, ignore=pin.dvcignore)
            if tree.hash_info == pin.hash_info:
                return True, [f"{data}/ is {release}"]
            lines = [f"{data}/ differs from {release}: it holds {meta.nfiles} files, {meta.size} bytes"]
            listing = pin.get_obj()
            if listing:
                lines += _by_md5(tree, listing)
            elif pin.hash_info.value == _RELEASE_MD5:
                lines += _by_header(data, tree)
            else:
                lines.append(f"  in which files can't be told: {_NO_LISTING}")
            if KEPT.is_file() and tree.hash_info.value in KEPT.read_text():
                lines.append(
                    f"  DVC's cache has a copy: if `dvc checkout` or `dvc exp apply` removes {data}/, "
                    f"`cp {KEPT} {PIN} && dvc checkout {data}` brings it back"
                )
            return False, lines
    except DvcException as error:
        raise UserError(f"{PIN}: {' '.join(str(error).split())}; restore it with `git checkout {PIN} .dvc`") from None
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; {data}/ can't be compared with {PIN}") from None


def keep(folder: Path) -> None:
    """Copy the files of `folder`, which is to become data/, into DVC's cache; data.dvc stays as it is.

    `dvc checkout --force` and `dvc exp apply` delete a data/ that the cache lacks, even one that data.dvc pins. Where
    data.dvc pins something else, `KEPT` gets a pin of `folder`: in the place of data.dvc it lets `dvc checkout` bring
    the files back, until `dvc gc` drops them.

    Raises:
        UserError: data.dvc or DVC's settings can't be read, or the cache can't take all files.
    """
    try:
        with Repo() as repo:
            out = repo.stage.load_one(str(PIN)).outs[0]
            staging, meta, tree = build(out.cache, str(folder.resolve()), out.fs, "md5")
            failed = transfer(staging, out.cache, {tree.hash_info}, shallow=False).failed
            if failed:
                raise UserError(f"{out.cache.path}: {len(failed)} files can't be written there; free some space")
            if tree.hash_info != out.hash_info:
                out.hash_info, out.meta = tree.hash_info, meta
                KEPT.write_text(yaml.safe_dump({"outs": [out.dumpd()]}, sort_keys=False))
    except DvcException as error:
        raise UserError(f"{PIN}: {' '.join(str(error).split())}; restore it with `git checkout {PIN} .dvc`") from None


def pin(data: Path) -> None:
    """Make `data` the release: what `dvc add` does, to data.dvc and to DVC's cache. Raises `UserError` if it fails."""
    try:
        with Repo() as repo:
            repo.add([str(data)])
    except DvcException as error:
        raise UserError(f"{data}/ can't be pinned: {' '.join(str(error).split())}") from None


def _by_md5(tree: Any, listing: Any) -> list[str]:
    found, pinned = _hashes(tree), _hashes(listing)
    changed = {name for name in found.keys() & pinned.keys() if found[name] != pinned[name]}
    return _differences(set(found), set(pinned), changed)


def _by_header(data: Path, tree: Any) -> list[str]:
    found = set(_hashes(tree))
    shared = found & _RELEASE.keys()
    changed = {name for name in shared if _colour_type(data / name) != _RELEASE[name]}
    lines = _differences(found, set(_RELEASE), changed)
    if len(changed) < len(shared):
        lines.append(f"  of the other {len(shared) - len(changed)} files some or all may have changed: {_NO_LISTING}")
    return lines


def _hashes(tree: Any) -> dict[str, str]:
    return {"/".join(key): info.value for key, _, info in tree}


def _colour_type(path: Path) -> int | None:
    """The colour type of a PNG; None for another file."""
    with path.open("rb") as file:
        header = file.read(26)
    return header[25] if re.match(rb"\x89PNG\r\n\x1a\n.{4}IHDR.{10}", header, re.DOTALL) else None


def _differences(found: set[str], pinned: set[str], changed: set[str]) -> list[str]:
    lines = []
    for kind, names in (("missing", pinned - found), ("extra", found - pinned), ("changed", changed)):
        if names:
            count = f"all {len(names)}" if names == pinned else str(len(names))
            more = ", ..." if len(names) > SHOWN else ""
            lines.append(f"  {kind}: {count} files: {', '.join(sorted(names)[:SHOWN])}{more}")
    return lines
