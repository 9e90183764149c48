"""Check that there are credentials, and that they get an access token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import google.auth
from google.auth.compute_engine import Credentials as MachineCredentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request

from daemon.cli.doctor.results import LOG_IN, failure, not_checkable, ok, unreachable_fix
from worker_chart_export.backends.errors import describe_error

if TYPE_CHECKING:
    from daemon.cli.doctor.results import CheckResult
    from daemon.settings.emulators import Emulators

CHECK = "credentials"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
#: The metadata server gives tokens to pods and machines of Google Cloud, if they can reach it.
METADATA_FIX = (
    "on Google Cloud let this pod or machine reach the metadata server 169.254.169.254 (NetworkPolicy, as in "
    "deploy/gke/network-policy.yaml), and bind its service account (Workload Identity)"
)
NO_ANSWER_FIX = f"{METADATA_FIX}; elsewhere: {LOG_IN}"


def check_credentials(project: str, emulators: Emulators) -> list[CheckResult]:
    """Find credentials as Google's clients do, and get a token, which is not kept."""
    if emulators.are_all:
        return [not_checkable(CHECK, "all three services are emulators, which need none")]
    found = None
    try:
        found, _ = google.auth.default(scopes=[SCOPE])
        found.refresh(Request())
    except GoogleAuthError as error:
        if isinstance(found, MachineCredentials):
            fix = METADATA_FIX
        else:
            fix = unreachable_fix(None) if isinstance(error, TransportError) else LOG_IN
        return [failure(CHECK, describe_error(error), fix)]
    except Exception as error:  # noqa: BLE001 - a broken credentials file; the error's text might quote it
        why = f"they can't be read: {type(error).__name__}"
        return [failure(CHECK, why, f"correct GOOGLE_APPLICATION_CREDENTIALS, or: {LOG_IN}")]
    email = getattr(found, "service_account_email", None)
    account = f"service account {email}" if email else type(found).__name__
    return [ok(CHECK, f"{account} got a token; project {project}")]
