"""The one exception for mistakes that a user can mend."""


class UserError(ValueError):
    """A mistake of the user's: one line that names the thing, what was found, what was expected.

    Our tools print the line last on stderr and exit with status 2; under mmseg's own scripts it is
    the message of the exception.

    Args:
        message: The line. torch re-raises an exception of a data-loading worker as the same class
            with a whole traceback for its message; only what follows the last ``UserError: `` of
            it is kept, so that the user reads the same line with and without workers.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit('UserError: ', 1)[-1].strip())
