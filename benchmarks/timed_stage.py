"""Run one stage of the pipeline in the current folder and write its seconds, without start-up and imports.

python benchmarks/timed_stage.py STAGE SECONDS.json
"""

import importlib
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))


def main() -> None:
    stage, target = sys.argv[1], Path(sys.argv[2])
    name = stage.replace("-", "_")
    function = getattr(importlib.import_module(name), name)

    from ctscan.core.stage import run_stage

    clock = time.perf_counter()
    run_stage(stage, function)
    target.write_text(json.dumps(time.perf_counter() - clock), encoding="utf-8")


if __name__ == "__main__":
    main()
