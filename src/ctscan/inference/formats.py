"""Write predictions as a table, as CSV or as JSON, row by row."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from ctscan.core.errors import UserError, writing

COLUMNS = ("path", "probability", "label", "unlike_training", "novelty", "colour", "score")


def shifted(probability: float, reading: Mapping[str, Any]) -> float:
    """The calibrated `probability` where the share of positives is `reading["prevalence"]`."""
    if reading["prevalence"] == reading["prior"]:
        return probability
    from ctscan.evaluation.prevalence import shift_prior

    return float(shift_prior([probability], reading["prior"], reading["prevalence"])[0])


@contextmanager
def opened(output: Path | None) -> Iterator[TextIO]:
    """The screen, or a file that takes its name when it is whole."""
    if output is None:
        yield sys.stdout
        return
    fresh = output.with_name(f"{output.name}.part")
    try:
        with writing(output):
            try:
                with fresh.open("w", encoding="utf-8", newline="") as stream:
                    yield stream
            except FileNotFoundError:
                raise UserError(f"{output}: no such folder; create it, or correct --output") from None
            fresh.replace(output)
    finally:
        with suppress(OSError):  # on a disk that can't be written to, it was never made
            fresh.unlink()


class _Table:
    def __init__(self, stream: TextIO, reading: dict[str, Any]) -> None:
        from ctscan.evaluation.calibration import apply_temperature

        self.stream = stream
        positive, temperature = reading["positive"], reading["temperature"]
        limit = shifted(float(apply_temperature([reading["threshold"]], temperature)[0]), reading)
        prior, prevalence = reading["prior"], reading["prevalence"]
        shift = (
            "" if prior == prevalence else f" and shifted from a share of {positive} of {prior:.2f} to {prevalence:g}"
        )
        print(
            f"Research only, not for diagnosis. Probability of {positive}, calibrated (temperature {temperature:.3g})"
            f"{shift}; {positive} from {limit:.3f} on (point {reading['point']})",
            file=stream,
        )

    def row(self, row: dict[str, Any]) -> None:
        notices = [
            *["unlike the training images"] * row["unlike_training"],
            *["in colour, read as grey"] * row["colour"],
        ]
        notice = f"  [{'; '.join(notices)}]" if notices else ""
        print(f"{row['probability']:.3f}  {row['label']:<12}  {row['path']}{notice}", file=self.stream)

    def end(
        self, tables: Sequence[dict[str, Any]], faults: Sequence[str], passed: Sequence[str], more: Mapping[str, Any]
    ) -> None:
        self.stream.flush()


class _Csv:
    def __init__(self, stream: TextIO, reading: dict[str, Any]) -> None:
        self.writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        self.writer.writeheader()

    def row(self, row: dict[str, Any]) -> None:
        self.writer.writerow(row)

    def end(
        self, tables: Sequence[dict[str, Any]], faults: Sequence[str], passed: Sequence[str], more: Mapping[str, Any]
    ) -> None:
        pass


class _Json:
    """One object, written row by row: how to read it, `predictions`, files left out, and `metrics` of labelled sets."""

    def __init__(self, stream: TextIO, reading: dict[str, Any]) -> None:
        self.stream, self.separator = stream, "\n"
        self.escaped = (getattr(stream, "encoding", None) or "utf-8").lower() not in ("utf-8", "utf8")
        stream.write("{\n" + "".join(f'  "{key}": {json.dumps(value)},\n' for key, value in reading.items()))
        stream.write('  "predictions": [')

    def row(self, row: dict[str, Any]) -> None:
        self.stream.write(f"{self.separator}    {json.dumps(row, ensure_ascii=self.escaped, allow_nan=False)}")
        self.separator = ",\n"

    def end(
        self, tables: Sequence[dict[str, Any]], faults: Sequence[str], passed: Sequence[str], more: Mapping[str, Any]
    ) -> None:
        kept = [{key: value for key, value in table.items() if key != "text"} for table in tables]
        self.stream.write(f'\n  ],\n  "left_out": {json.dumps(list(faults))},\n')
        self.stream.write(f'  "passed_over": {json.dumps(list(passed))},\n')
        for key, value in more.items():
            self.stream.write(f'  "{key}": {json.dumps(value, ensure_ascii=self.escaped, allow_nan=False)},\n')
        self.stream.write(f'  "metrics": {json.dumps(kept, ensure_ascii=self.escaped, allow_nan=False)}\n}}\n')


WRITERS: dict[str, Callable[[TextIO, dict[str, Any]], _Table | _Csv | _Json]] = {
    "table": _Table,
    "csv": _Csv,
    "json": _Json,
}
