"""The one error a user is meant to read: a single line that says what to do."""


class PcclipError(Exception):
    """Raised for anything the user can put right; the command line prints it without a traceback."""
