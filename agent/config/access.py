"""Who may read what: names for the messages about permissions."""

from __future__ import annotations

import os
import pwd

SERVICE_USER = "vision-ingest"


def current_user() -> str:
    """The name of the user that this process acts as, or its number if it has no name."""
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
