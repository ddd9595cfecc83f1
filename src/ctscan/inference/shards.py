"""Predict a part of many files, and put such parts together as if one run had predicted all files.

A part file holds JSON, one value per line. The first line says what the part is of: its shard, the files of the whole
and their number, the model with all that its scores are read by, and the options. Each slice, and each file that was
left out, has a line, in the order of the files. The last line holds the number of lines between, so that half a file
does not pass for a whole one.
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ctscan.core.errors import UserError
from ctscan.inference.bundle import NOVELTY, Prediction

Result = tuple[Path, Prediction | UserError]  # a file, and what is said of one of its slices, or what is wrong with it


class Shard(NamedTuple):
    """Every `of`-th file of a list, from the one with this `number` on, which counts from 1."""

    number: int
    of: int

    def files(self, every: Sequence[Path]) -> Sequence[Path]:
        """The files of the shard, of `every` file, in their order."""
        return every[self.number - 1 :: self.of]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """`2/8` as a shard. Raises `UserError` where it is not of this form."""
    number, _, of = text.partition("/")
    if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise UserError(f"--shard {text}: it needs I/N, such as 2/8, with I from 1 to N")


def origin(reading: Mapping[str, Any], min_size: int, paths: Sequence[str], files: Sequence[Path]) -> dict[str, Any]:
    """What all parts of the same predictions have in common.

    Args:
        reading: how scores are read. Only the prevalence is left out, to which probabilities are shifted afterwards.
        min_size: pixels that a slice needs.
        paths: as they were given.
        files: that they lead to.
    """
    names = "\n".join(str(path) for path in files).encode("utf-8", "surrogateescape")
    with NOVELTY.open("rb") as stream:
        novelty = hashlib.file_digest(stream, "md5").hexdigest()
    return {
        "paths": list(paths),
        "files": len(files),
        "files_sha256": hashlib.sha256(names).hexdigest(),
        "novelty_md5": novelty,
        "min_size": min_size,
        **{name: value for name, value in reading.items() if name != "prevalence"},
    }


def write_part(
    stream: TextIO, shard: Shard, origin: Mapping[str, Any], files: Sequence[Path], results: Iterable[Result]
) -> None:
    """Write what `results` says of the `files` of a shard, as one part of what `origin` describes."""

    def write(value: Any) -> None:
        stream.write(json.dumps(value, allow_nan=False) + "\n")

    write({"shard": str(shard), **origin})
    numbers = {path: index for index, path in enumerate(files)}
    lines = 0
    for path, found in results:
        place = {"file": shard.number - 1 + numbers[path] * shard.of}
        if isinstance(found, UserError):
            write(place | {"fault": str(found)})
        else:
            write(place | {name: value for name, value in found._asdict().items() if name != "path"})
        lines += 1
    write({"lines": lines})


def read_parts(parts: Sequence[Path], origin: Mapping[str, Any], files: Sequence[Path]) -> Iterator[Result]:
    """What the `parts` of `files` say together, in the order of the files, read line by line.

    Raises:
        UserError: a part is of other files, another model or other options than `origin`, or is damaged; a shard is
            missing, or there twice. All this before the first result.
    """
    shards: dict[Shard, Path] = {}
    for path in parts:
        shard = _checked(path, origin)
        if shard in shards:
            raise UserError(f"{path} and {shards[shard]} are both shard {shard}; leave one of them out")
        shards[shard] = path
    numbers = {shard.of for shard in shards}
    if len(numbers) > 1:
        raise UserError(f"the parts are of {' and of '.join(map(str, sorted(numbers)))} shards; give those of one run")
    of = numbers.pop()
    missing = [str(Shard(number, of)) for number in range(1, of + 1) if Shard(number, of) not in shards]
    if missing:
        raise UserError(f"no part of shard {', '.join(missing)}; predict it, or name its file")
    return _merged(list(shards.values()), files)


def _merged(parts: Sequence[Path], files: Sequence[Path]) -> Iterator[Result]:
    for line in heapq.merge(*map(_lines, parts), key=lambda line: int(line["file"])):
        path = files[line.pop("file")]
        yield path, UserError(line["fault"]) if "fault" in line else Prediction(path, **line)


def _lines(part: Path) -> Iterator[dict[str, Any]]:
    """The lines of a part between the first and the last."""
    with part.open(encoding="utf-8") as stream:
        next(stream)
        for line in stream:
            value = json.loads(line)
            if "lines" in value:
                return
            yield value


def _checked(part: Path, origin: Mapping[str, Any]) -> Shard:
    """The shard that the file `part` holds. Raises `UserError` unless it is whole and of `origin`."""
    try:
        with part.open(encoding="utf-8") as stream:
            first = json.loads(next(stream))
            shard = parse_shard(first["shard"])
            lines, last = -1, ""
            for line in stream:
                lines, last = lines + 1, line
            whole = json.loads(last) == {"lines": lines}
    except FileNotFoundError:
        raise UserError(f"{part}: no such file; correct the path") from None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, UserError):
        raise UserError(f"{part}: damaged, or no part that `ctscan predict --shard` wrote; predict it again") from None
    if not whole:
        raise UserError(f"{part}: damaged, lines are missing; copy it again, or predict shard {shard} again")
    for name, value in origin.items():
        if first.get(name) != value:
            raise UserError(
                f"{part}: predicted with {name} = {first.get(name)}, and here it is {value}; merge with the same "
                "PATHs, model and --point, or predict the shard again"
            )
    return shard
