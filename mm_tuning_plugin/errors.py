"""The one exception for mistakes that a user can correct."""


class UserError(ValueError):
    """A user's mistake as one line: `{where}: {problem}; {remedy}`.

    Our tools print the line last on stderr and exit with status 2. Under mmseg's own scripts it is
    the message of the exception.

    Args:
        where: The file, option or config entry that is wrong. A whole line is read back into its
            fields, and so is a traceback that ends with one: torch re-raises an exception of a
            data-loading worker as the same class with the traceback as its only argument.
        problem: What is wrong; what was found.
        remedy: What was expected, or how to correct it.

    Attributes:
        where, problem, remedy: The arguments. Read back from a line, `where` ends at its first
            ': ' and `remedy` starts after its last '; '.
    """

    def __init__(self, where: str, problem: str = '', remedy: str = '') -> None:
        if not problem:
            where, _, told = where.rsplit('UserError: ', 1)[-1].strip().partition(': ')
            problem, _, remedy = told.rpartition('; ') if '; ' in told else (told, '', '')
        self.where, self.problem, self.remedy = where, problem, remedy
        told = '; '.join(part for part in (problem, remedy) if part)
        super().__init__(f'{where}: {told}' if told else where)
