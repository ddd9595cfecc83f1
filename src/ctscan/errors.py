"""The one error a person is meant to read."""


class UserError(Exception):
    """Something the user can put right. The message is one line: what is wrong, where, and what to do.

    `ctscan.stage.run_stage` prints it without a traceback and exits with status 1.
    """
