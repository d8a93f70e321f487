"""Errors that were reported instead of raised, for tests to look at."""

reported: list[str] = []


def report(message, *, exc_info=False):
    """A line for the console, with a trace if asked."""
    reported.append(message)


def display(e, task, *, full_traceback=False):
    """An exception for the console."""
    reported.append(f"{task}: {e}")
