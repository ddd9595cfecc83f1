"""Print the table of the last run, the study's figures beside it."""

import json
import sys
from pathlib import Path

from ctscan.evaluation.tables import results_table


def main() -> None:
    details = Path("metrics/details.json")
    if not details.is_file():
        sys.exit(f"{details} is missing; run the pipeline with `make repro`")
    report = json.loads(details.read_text(encoding="utf-8"))
    print(results_table({model: report[model] for model in ("initial", "finetuned")}))


if __name__ == "__main__":
    main()
