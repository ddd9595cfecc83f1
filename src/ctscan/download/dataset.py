"""`ctscan data`: the study's dataset from Kaggle or from an archive into data/, whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import SCRATCH
from ctscan.core.params import Classes
from ctscan.download.archives import unpack

import requests
from requests.adapters import HTTPAdapter

OWNER, DATASET = "plameneduardo", "sarscov2-ctscan-dataset"
LICENCE = "CC BY-NC-SA 4.0"
CITATION = (
    "Soares, Angelov, Biaso, Froes, Abe (2020). SARS-CoV-2 CT-scan dataset: a large dataset of real patients CT scans "
    "for SARS-CoV-2 identification. medRxiv 2020.04.24.20078584"
)

DATA = Path("data")
WORK = SCRATCH / "fetch"  # beside data/, so that a rename puts the new folder in place
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}

TIMEOUT = (5.0, 15.0)  # seconds to connect and between bytes; offline, the fetch fails within their sum
MAX_ATTEMPTS = 20  # each but the last got further than the one before

_UNPACKED, _FRESH, _OLD = WORK / "unpacked", WORK / "fresh", WORK / "old"
_BY_HAND = "download it in a browser and run `ctscan data --archive PATH`"


def fetch(classes: Classes, archive: Path | None) -> None:
    """Fill data/ with the two class folders of `archive`, or of the release on Kaggle.

    data/ changes by rename at the end: a failure or a kill leaves the old one, or none. The remains of a killed fetch
    go first, except for a part of the download, which goes on.

    Args:
        classes: the names that the class folders have in data/; the archive may write them in other cases.
        archive: a zip, a tar or a folder; None downloads the release.

    Raises:
        UserError: the download or the archive fails (`download`, `archives.unpack`), or the class folders are
            absent, ambiguous or without images.
    """
    try:
        _clear_remains()
        source = download(WORK) if archive is None else archive
        try:
            unpack(source, _UNPACKED)
            folders = find_class_folders(_UNPACKED, (classes.positive, classes.negative), source)
        except UserError as error:
            if archive is not None:
                raise
            # Kept, it would only fail again: a resumed part of something else never becomes whole.
            source.unlink(missing_ok=True)
            raise UserError(f"{OWNER}/{DATASET}: {error}: run `ctscan data` again, or {_BY_HAND}") from None
        _gather(folders)
        _swap()
        if archive is None:
            source.unlink()
    except OSError as error:
        place = error.filename or WORK
        raise UserError(f"{place}: {error.strerror}; {DATA}/ can't be filled until that is put right") from None
    finally:
        _clear_remains()


def download(folder: Path) -> Path:
    """The archive of Kaggle's release, in `folder`; a part that lies there goes on where it stopped.

    Public data: credentials are used if Kaggle's usual variables or files hold them. An attempt that got further is
    followed by another, up to `MAX_ATTEMPTS`.

    Raises:
        UserError: no network, refused, absent, or dropped for good. The part that came stays for the next call.
    """
    # kagglehub.dataset_download waits without limit for the server, and unpacks whatever came without limit.
    from kagglehub.clients import build_kaggle_client, download_file
    from kagglehub.exceptions import DataCorruptionError
    from kagglehub.handle import parse_dataset_handle
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    # A dead name server is waited for longer than a dead host; the C library reads this at its first look-up.
    os.environ.setdefault("RES_OPTIONS", "timeout:3 attempts:2")
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "release.archive"
    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = OWNER, DATASET
    handle = parse_dataset_handle(f"{OWNER}/{DATASET}")
    reason = ""
    for _ in range(MAX_ATTEMPTS):
        before = _size(archive)
        try:
            with build_kaggle_client() as client:
                session = client.http_client()._session
                session.mount("https://", _TimeLimited())
                session.mount("http://", _TimeLimited())
                with client.datasets.dataset_api_client.download_dataset(request) as response:
                    download_file(response, str(archive), handle)
            return archive
        except requests.HTTPError as error:
            raise UserError(f"{handle}: {_explain(error.response.status_code)}, or {_BY_HAND}") from None
        except DataCorruptionError:
            raise UserError(
                f"{handle}: what came has another checksum than the server announced, and is deleted; "
                f"run `ctscan data` again, or {_BY_HAND}"
            ) from None
        except requests.RequestException as error:
            reason = type(error).__name__
            if _size(archive) <= before:
                break
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{handle}: Kaggle's credentials or its answer can't be read ({' '.join(str(error).split())}); "
                f"mend or remove ~/.kaggle/kaggle.json, or {_BY_HAND}"
            ) from None
    raise UserError(
        f"{handle}: the server can't be reached or dropped the connection ({reason}) after {_size(archive)} bytes; "
        f"check the network and run `ctscan data` again, which goes on from there, or {_BY_HAND}"
    )


class _TimeLimited(HTTPAdapter):
    """kagglesdk sends its requests without a time limit."""

    def send(self, *args: Any, **kwargs: Any) -> Any:
        return super().send(*args, **{**kwargs, "timeout": TIMEOUT})


def _explain(status: int) -> str:
    if status in (401, 403):
        return (
            f"access is refused (HTTP {status}); the dataset is public, so check the KAGGLE_* variables "
            "and ~/.kaggle, or do without them"
        )
    if status == 404:
        return "there is no such dataset on Kaggle any more (HTTP 404); look where it went"
    return f"the server answers HTTP {status}; try again later"


def find_class_folders(root: Path, names: tuple[str, str], source: Path) -> dict[str, Path]:
    """For each class name the one folder at or below `root` of that name, in any case, with images directly in it.

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
    return path.suffix.lower() in IMAGE_SUFFIXES and not _is_junk(path.name) and path.is_file()


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _gather(folders: dict[str, Path]) -> None:
    """Move the class folders together, without hidden files."""
    _FRESH.mkdir(parents=True)
    # The deeper one first: it may lie in the other.
    for name, folder in sorted(folders.items(), key=lambda item: -len(item[1].parts)):
        folder.rename(_FRESH / name)
    for path in sorted(_FRESH.rglob("*"), reverse=True):
        if _is_junk(path.name):
            _remove(path)


def _swap() -> None:
    if os.path.lexists(DATA):
        DATA.rename(_OLD)
    _FRESH.rename(DATA)


def _clear_remains() -> None:
    """What a fetch leaves behind, however it ended. Between the two renames of a swap, the old data/ comes back."""
    if os.path.lexists(_OLD) and not os.path.lexists(DATA):
        _OLD.rename(DATA)
    for path in (_UNPACKED, _FRESH, _OLD):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
