"""`python -m ctscan COMMAND`: use the model that the last run made. Run from the top of the repository."""

import argparse
import os
import sys
from importlib import import_module

from ctscan.core.errors import UserError

# Each command is a module with `add_arguments(parser)` and `run(arguments) -> exit status`, imported when it is asked
# for: TensorFlow takes seconds, help should not.
COMMANDS: dict[str, tuple[str, str]] = {
    "predict": ("ctscan.inference.predict", "predict CT slices; with class folders, judge the model on them"),
    "explain": ("ctscan.inference.explain", "draw what in a slice speaks for the predicted class (Grad-CAM)"),
    "export": ("ctscan.inference.export", "write the model for ONNX Runtime, TensorFlow or TFLite, and check it"),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ctscan", description=__doc__.partition(":")[2].strip())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    chosen = parser.parse_args(arguments[:1]).command
    module = import_module(COMMANDS[chosen][0])
    command = argparse.ArgumentParser(prog=f"python -m ctscan {chosen}", description=module.__doc__)
    module.add_arguments(command)
    try:
        return int(module.run(command.parse_args(arguments[1:])))
    except UserError as error:
        print(f"{chosen}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough; Python's last flush is to find nobody there in silence
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"\n{chosen}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
