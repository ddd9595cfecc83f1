"""Run a command of the library: `ctscan COMMAND`, or `python -m ctscan COMMAND`, from the top of the repository."""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ctscan.core.errors import UserError, escape_unprintable, writing

# Each command is a module with `add_arguments(parser)` and `run(arguments) -> exit status`, imported when it is asked
# for, because TensorFlow takes seconds to import and help should not. Where a command has something to say after
# Ctrl-C, its module says it in `INTERRUPTED`.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Use the model": {
        "predict": ("ctscan.inference.predict", "predict CT slices; with class folders, judge the model on them"),
        "explain": ("ctscan.inference.explain", "draw what in a slice speaks for the predicted class (Grad-CAM)"),
        "external": ("ctscan.inference.external", "judge the model once on a labelled folder of another source"),
        "export": ("ctscan.inference.export", "write the model for ONNX Runtime, TensorFlow or TFLite, and check it"),
    },
    "Data and weights": {
        "data": ("ctscan.download.data", "get the study's dataset, from Kaggle or from an archive that you have"),
        "weights": ("ctscan.download.weights", "get ImageNet weights ahead of a run, or track a weights file of yours"),
        "draw-sample": ("ctscan.phantoms", "draw the synthetic sample anew"),
    },
    "Compare runs": {
        "results": ("ctscan.experiments.results", "print the table of the last run"),
        "plots": ("ctscan.experiments.plots_page", "write results and plots as one page that opens with no network"),
        "report": ("ctscan.experiments.report", "write the same as Markdown and PNG, for a pull request"),
    },
    "Experiments": {
        "sweep": ("ctscan.experiments.sweep", "try combinations of values and rank them on validation"),
        "repeats": ("ctscan.experiments.repeats", "repeat split, training and test with other seeds"),
        "worker": ("ctscan.experiments.worker", "do one run of a sweep on this machine, as `sweep --on` has it done"),
        "folds": ("ctscan.experiments.folds", "pool the folds of a cross-validation into one table and set of plots"),
        "record-folds": ("ctscan.experiments.recorded_folds", "keep the pooled folds under studies/"),
        "record-study": ("ctscan.experiments.studies", "keep the run in the work tree under studies/"),
    },
    "Check and maintain": {
        "folders": ("ctscan.split.folders", "make split/images, the study's four folders, that of split/manifest.csv"),
        "verify": ("ctscan.experiments.verify", "run the committed pipeline again and compare the bytes"),
        "check-lock": ("ctscan.experiments.check_lock", "check that dvc.lock is in step; needs no data"),
        "readme-tables": ("ctscan.experiments.readme_tables", "fill the figures in the documents from the metrics"),
        "environment": ("ctscan.experiments.environment", "record the processor and the versions of the libraries"),
    },
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command that `arguments` (by default those of the process) name. Returns the exit status.

    A `UserError` is one line on stderr and gives 1, Ctrl-C gives 130. Raises SystemExit where `arguments` can't be
    parsed or ask for help.
    """
    escape_unprintable()
    given = sys.argv[1:] if arguments is None else arguments
    chosen, module = "ctscan", None
    try:
        try:
            chosen = _parse_name(given[:1])
            module = _imported(chosen)
            parsed = _parser(chosen, module).parse_args(given[1:])
            with writing(Path.cwd()):
                return int(module.run(parsed))
        finally:
            sys.stdout.flush()  # so that a pipe that nobody reads any longer shows here
    except UserError as error:
        print(f"{chosen}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough; Python's last flush is to find nobody there in silence
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        remark = getattr(module, "INTERRUPTED", "")
        print(f"\n{chosen}: interrupted{'; ' if remark else ''}{remark}", file=sys.stderr)
        return 130


def _parse_name(arguments: list[str]) -> str:
    """The command that the first argument names. Exits with help where that is asked for or there is none."""
    parser = argparse.ArgumentParser(
        prog="ctscan",
        usage="ctscan COMMAND [arguments]; ctscan COMMAND --help",
        description="COVID vs non-COVID on chest CT slices. Run from the top of the repository.",
        epilog=_overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [name for group in COMMANDS.values() for name in group]
    parser.add_argument("command", choices=names, metavar="COMMAND", help="one of those below")
    return str(parser.parse_args(arguments).command)


def _imported(chosen: str) -> ModuleType:
    (name,) = (group[chosen][0] for group in COMMANDS.values() if chosen in group)
    return import_module(name)


def _parser(chosen: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"ctscan {chosen}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    return parser


def _overview() -> str:
    groups = []
    for heading, members in COMMANDS.items():
        lines = (f"  {name:15}{summary}" for name, (_, summary) in members.items())
        groups.append("\n".join([f"{heading}:", *lines]))
    return "\n\n".join(groups)


if __name__ == "__main__":
    sys.exit(main())
