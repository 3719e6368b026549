"""The one error a user is meant to read: a single line that says what to do."""


class PcclipError(Exception):
    """Raised for anything the user can put right; the command line prints it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of the error (IPython's hook): one line, no frames."""
        return [f"PcclipError: {self}"]


def one_line(error: Exception) -> str:
    """What a library's error says, in one line of at most 300 characters; its class where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__
