"""How much a request, an upload and the queue may hold: for one session, and for all of them."""

from __future__ import annotations

MIB = 1 << 20

LARGEST_PAYLOAD = 3 * MIB
"""Bytes of a JSON body: the names of 5,000 training images fit, and no text is nearly as long."""
LONGEST_TEXT = 50_000
"""Characters of one text field, such as a prompt."""
MOST_TEXT = 200_000
"""Characters of all text fields of one request."""
MOST_VALUES = 5_000
"""Items of one list, such as uploaded files."""

LARGEST_FILE = 64 * MIB
"""Bytes of one uploaded file."""
LARGEST_UPLOAD = 2048 * MIB
"""Bytes of one upload, with all of its files."""
MOST_FILES = 1_000
"""Files of one upload; the page sends more in several."""
MOST_KEPT, MOST_KEPT_IN_ALL = 4096 * MIB, 8192 * MIB
"""Bytes of uploads that are kept for one session, and for all."""

MOST_UPLOADS, MOST_UPLOADS_IN_ALL = 2, 6
"""Uploads at the same time."""
MOST_CALLS, MOST_CALLS_IN_ALL = 16, 48
"""Requests with a payload at the same time."""
MOST_QUEUED, MOST_QUEUED_IN_ALL = 24, 64
"""Jobs that wait or run, open views of a training included."""
MOST_SESSIONS = 200
"""Windows whose fields gradio remembers; the oldest is forgotten first."""
MOST_UNREAD = 500
"""Messages of one session's jobs that nobody has read; with more, it gets no further job."""
MOST_CONNECTIONS = 400
"""Connections at the same time; more are answered with 503."""

SILENCE = 20.0
"""Seconds that a client may take between two parts of a body."""
SLOWEST = 32 << 10
"""Bytes a second that a body must have on average, after the first :data:`SILENCE` seconds."""
CLOSED, ABANDONED = 60.0, 3600.0
"""Seconds after which uploads are deleted: since the last window closed, or where no window was
ever open.
"""
