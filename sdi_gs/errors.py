"""Errors that are shown to users."""


class UserError(Exception):
    """Bad input that the user can fix.

    The message is one line that names the value, the accepted ones and the fix. The CLI prints it and exits
    with code 2; it never shows a traceback for it.
    """


class DiskFullError(UserError):
    """A disk that is full."""

    def __init__(self, path: object) -> None:
        self.problem = f"no space left on the disk while writing {path}"
        """The message without its fix."""
        super().__init__(f"{self.problem}: free some space and run the command again")


class NonFiniteError(UserError):
    """A quantity of a training step that is not finite; the step was undone."""
