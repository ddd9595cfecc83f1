"""Exit 1 where dvc.lock is not in step with the code, the params, the metrics or the plots; no data needed."""

import subprocess
import sys


def main() -> None:
    # With outs present `dvc repro --dry` exits 0 whatever it would run, so its words decide.
    dry = subprocess.run(["dvc", "repro", "--dry", "--allow-missing"], capture_output=True, text=True, check=False)
    stale = [line for line in dry.stdout.splitlines() if line.startswith("Running stage")]
    if dry.returncode or stale:
        print(*(stale or [dry.stderr.strip()]), sep="\n", file=sys.stderr)
        sys.exit("dvc.lock is not in step: run `dvc repro` and commit dvc.lock, metrics and plots")
    print("dvc.lock is in step with code, params, metrics and plots")


if __name__ == "__main__":
    main()
