"""Drop access tokens that Google refuses.

Google's clients get a new token shortly before the old one ends by the wall clock. If that clock is set back
meanwhile, they use a token for longer than it is valid. They get no other when a gRPC call is refused.
"""

from __future__ import annotations

import gc
import threading
from datetime import datetime

from google.api_core.exceptions import Unauthorized
from google.auth.credentials import Credentials

from worker_chart_export.timing import boot_seconds

#: Tokens are dropped at most this often, so that wrong credentials cause no flood of requests for tokens.
MIN_INTERVAL_SECONDS = 60.0
#: Google's clients compare times without a zone, in UTC.
_LONG_AGO = datetime(1970, 1, 1)  # noqa: DTZ001 - see above

_lock = threading.Lock()
_next_at = 0.0


def drop_refused_tokens(error: Exception) -> None:
    """After a call that was refused as unauthenticated, let every client of this process get a new token."""
    global _next_at  # noqa: PLW0603 - one for the process, as its credentials are
    if not isinstance(error, Unauthorized):
        return
    with _lock:
        if boot_seconds() < _next_at:
            return
        _next_at = boot_seconds() + MIN_INTERVAL_SECONDS
    # Each client makes its own credentials and copies of them, and names them nowhere in its interface.
    for found in gc.get_objects():
        if issubclass(type(found), Credentials) and found.expiry is not None:
            found.expiry = _LONG_AGO
