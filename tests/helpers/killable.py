"""Run the functions of killing.py in processes of their own, which may be killed."""

import multiprocessing
from typing import Any


class Killable:
    """Runs functions of killing.py in processes that a server forks, so TensorFlow is imported once."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["killing"])

    def __call__(self, function: str, *arguments: Any) -> int:
        process = self.context.Process(target=_call, args=(function, *arguments))
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode


def _call(function: str, *arguments: Any) -> None:
    import killing

    getattr(killing, function)(*arguments)
