"""Exit 1 where dvc.lock is not in step with the code, the params, the metrics or the plots; no data needed."""

import re
import subprocess
import sys


def main() -> None:
    # With outs present `dvc repro --dry` exits 0 whatever it would run, and without them it fails on the inputs of a
    # stage that it would run: so its words decide.
    dry = subprocess.run(["dvc", "repro", "--dry", "--allow-missing"], capture_output=True, text=True, check=False)
    stale = re.findall(r"(?:Running stage|failed to reproduce) '(.+?)'", dry.stdout + dry.stderr)
    if stale:
        sys.exit(f"dvc.lock is not in step at {', '.join(stale)}: run `dvc repro` and commit dvc.lock, metrics, plots")
    if dry.returncode:
        sys.exit(f"dvc.lock can't be checked: {dry.stderr.strip()}")
    print("dvc.lock is in step with code, params, metrics and plots")


if __name__ == "__main__":
    main()
