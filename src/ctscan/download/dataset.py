"""Fill data/ with the study's dataset, from Kaggle or from an archive, whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread

from ctscan.core.errors import UserError
from ctscan.core.files import SCRATCH
from ctscan.core.params import Classes
from ctscan.download.archives import unpack
from ctscan.download.release import keep
from ctscan.images.decode import EXTENSIONS

import requests

HANDLE = "plameneduardo/sarscov2-ctscan-dataset"
LICENCE = "CC BY-NC-SA 4.0"
CITATION = (
    "Soares, Angelov, Biaso, Froes, Abe (2020). SARS-CoV-2 CT-scan dataset: a large dataset of real patients CT scans "
    "for SARS-CoV-2 identification. medRxiv 2020.04.24.20078584"
)

DATA = Path("data")
WORK = SCRATCH / "fetch"  # beside data/, so that a rename puts the new folder in place
PATIENCE = 15.0  # seconds between two looks at a download; one that brought nothing meanwhile is given up

_RELEASE, _UNPACKED, _FRESH, _OLD = WORK / "kagglehub", WORK / "unpacked", WORK / "fresh", WORK / "old"
_BY_HAND = "download it in a browser and run `ctscan data --archive PATH`"


def fetch(classes: Classes, archive: Path | None) -> None:
    """Fill data/ with the two class folders of `archive`, or of the release on Kaggle.

    data/ changes by rename at the end: a failure or a kill leaves the old one, or none. The remains of a killed call
    are removed by the next one, except for a part of the download, which goes on. DVC's cache gets a copy (`keep`).

    Args:
        classes: the names that the class folders have in data/; the archive may write them in other cases.
        archive: a zip, a tar or a folder; None downloads the release.

    Raises:
        UserError: the download, the archive or the cache fails (`download`, `archives.unpack`, `release.keep`), the
            class folders are absent, ambiguous or without images, or the file system refuses something.
    """
    try:
        _clear_remains()
        if archive is None:
            root = download()
        elif archive.is_dir():
            root = archive
        else:
            root = _UNPACKED
            unpack(archive, root)
        _gather(find_class_folders(root, (classes.positive, classes.negative), archive or HANDLE))
        keep(_FRESH)  # before the swap, so that data/ never holds what the cache lacks
        _swap()
        if archive is None:
            _remove(_RELEASE)
    except OSError as error:
        place, reason = error.filename or WORK, error.strerror or " ".join(str(error).split())
        raise UserError(f"{place}: {reason}; {DATA}/ can't be filled until that is put right") from None
    finally:
        _clear_remains()


def download() -> Path:
    """The folder into which kagglehub has unpacked Kaggle's release.

    Public data: credentials are used if Kaggle's usual variables or files hold them. A part that an earlier call left
    goes on where it stopped.

    Raises:
        UserError: no network, refused, absent, broken off, silent, or something else than the release.
        OSError: the file system refuses to write.
    """
    import kagglehub

    os.environ["KAGGLEHUB_CACHE"] = str(_RELEASE.resolve())  # in its output_dir instead, a part would not go on
    outcome: Future[str] = Future()

    def work() -> None:
        try:
            outcome.set_result(kagglehub.dataset_download(HANDLE, force_download=True))
        except BaseException as error:
            outcome.set_exception(error)

    # kagglehub waits for a silent server without limit, and socket.setdefaulttimeout has no effect on requests, so a
    # thread does the work, which is left behind where nothing comes.
    Thread(target=work, daemon=True).start()
    before = -1
    while not wait([outcome], PATIENCE).done:
        size = sum(path.stat().st_size for path in _RELEASE.rglob("*") if path.is_file())
        if size == before:
            raise UserError(_unreachable(f"nothing came for {PATIENCE:g} s"))
        before = size
    try:
        return Path(outcome.result())
    except requests.HTTPError as error:
        raise UserError(f"{HANDLE}: {_explain(error.response.status_code)}, or {_BY_HAND}") from None
    except requests.RequestException as error:
        raise UserError(_unreachable(type(error).__name__)) from None
    except OSError:
        raise
    except Exception as error:  # kagglehub meets damaged archives, answers and credentials with errors of any type
        _remove(_RELEASE)  # kept, a part of something else would never become whole
        reason = " ".join(str(error).split())
        raise UserError(
            f"{HANDLE}: {type(error).__name__}: {reason}; put that right or run `ctscan data` again, or {_BY_HAND}"
        ) from None


def _unreachable(reason: str) -> str:
    return (
        f"{HANDLE}: the server can't be reached or dropped the connection ({reason}); check the network and run "
        f"`ctscan data` again, which goes on where this stopped, or {_BY_HAND}"
    )


def _explain(status: int) -> str:
    if status in (401, 403):
        return (
            f"access is refused (HTTP {status}); the dataset is public, so check the KAGGLE_* variables "
            "and ~/.kaggle, or do without them"
        )
    if status == 404:
        return "there is no such dataset on Kaggle any more (HTTP 404); look where it went"
    return f"the server answers HTTP {status}; try again later"


def find_class_folders(root: Path, names: tuple[str, str], source: Path | str) -> dict[str, Path]:
    """For each class name the one folder below `root` of that name, in any case, with images directly in it.

    Hidden folders and macOS' `__MACOSX` don't count. `source` is what the message of the `UserError` names.
    """
    found: dict[str, list[Path]] = {name: [] for name in names}
    for folder in _folders(root):
        for name in names:
            if folder.name.casefold() == name.casefold() and any(_is_image(path) for path in folder.iterdir()):
                found[name].append(folder)
    for name, folders in found.items():
        if not folders:
            raise UserError(
                f"{source}: holds no folder {name!r} with images; check that it is the dataset, "
                "or set classes in params.yaml to its folders"
            )
        if len(folders) > 1:
            places = ", ".join(f"{folder.relative_to(root).as_posix()!r}" for folder in folders)
            raise UserError(
                f"{source}: holds several folders {name!r}: {places}; give an archive with one of each class"
            )
    return {name: folders[0] for name, folders in found.items()}


def _folders(root: Path) -> Iterator[Path]:
    for folder, subfolders, _ in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not _is_junk(name))
        yield from (Path(folder, name) for name in subfolders)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not _is_junk(path.name) and path.is_file()


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _gather(folders: dict[str, Path]) -> None:
    """Copy the class folders side by side, each without hidden files and without the other, which may lie in it."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if _is_junk(name) or Path(folder, name) in folders.values()]

    for name, folder in folders.items():
        shutil.copytree(folder, _FRESH / name, ignore=left_out)


def _swap() -> None:
    if os.path.lexists(DATA):
        DATA.rename(_OLD)
    _FRESH.rename(DATA)


def _clear_remains() -> None:
    """Remove what a call leaves behind, however it ended; the old data/ comes back from between the two renames."""
    if os.path.lexists(_OLD) and not os.path.lexists(DATA):
        _OLD.rename(DATA)
    for path in (_UNPACKED, _FRESH, _OLD):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
