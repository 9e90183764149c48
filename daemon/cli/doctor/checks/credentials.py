"""Whether there are credentials, and whether they are still good for an access token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import google.auth
from google.auth.compute_engine import Credentials as MachineCredentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request

from daemon.cli.doctor.refusals import LOG_IN, reach
from daemon.cli.doctor.results import failure, not_checkable, ok
from worker_chart_export.backends.errors import describe_error

if TYPE_CHECKING:
    from daemon.cli.doctor.results import CheckResult
    from daemon.settings.emulators import Emulators

CHECK = "credentials"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
#: What gives tokens to a pod or a machine of Google Cloud; one that is cut off answers nothing at all.
METADATA = (
    "on Google Cloud let this pod or machine reach the metadata server 169.254.169.254 (NetworkPolicy, as in "
    "deploy/gke/network-policy.yaml), and bind its service account (Workload Identity)"
)
#: What helps when nothing answers.
NOBODY_ANSWERS = f"{METADATA}; elsewhere: {LOG_IN}"


def check_credentials(project: str, emulators: Emulators) -> list[CheckResult]:
    """Find them as Google's clients do, and ask for a token; the token itself is thrown away."""
    if emulators.are_all:
        return [not_checkable(CHECK, "all three services are emulators, which ask for none")]
    found = None
    try:
        found, _ = google.auth.default(scopes=[SCOPE])
        found.refresh(Request())
    except GoogleAuthError as error:
        return [failure(CHECK, describe_error(error), _mend(found, error))]
    except Exception as error:  # noqa: BLE001 - a credentials file that is none; its words might quote it
        why = f"they can't be read: {type(error).__name__}"
        return [failure(CHECK, why, f"correct GOOGLE_APPLICATION_CREDENTIALS, or: {LOG_IN}")]
    return [ok(CHECK, f"{_account(found)} got a token; project {project}")]


def _mend(found: object, error: GoogleAuthError) -> str:
    """For credentials that are there, but get no token; or for none."""
    if isinstance(found, MachineCredentials):
        return METADATA
    return reach(None) if isinstance(error, TransportError) else LOG_IN


def _account(found: object) -> str:
    email = getattr(found, "service_account_email", None)
    return f"service account {email}" if email else type(found).__name__
