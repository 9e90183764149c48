"""`docs/security.md` names files, settings and roles that exist."""

from __future__ import annotations

import re

from daemon.settings import Settings
from daemon.settings.tracing import TracingSettings
from tests.support.process.daemons import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
QUOTED = set(re.findall(r"`([^`\n]+)`", TEXT))
ROLE = re.compile(r"roles/[a-z]+\.[A-Za-z]+")


def test_every_file_it_names_exists():
    """Every path exists; a folder's path ends in a slash."""
    files = {name for name in QUOTED if re.fullmatch(r"\w[\w.-]*(/[\w.-]*)+|[\w-]+\.(lock|toml)", name)}
    paths = {name for name in files if not ROLE.fullmatch(name)}
    assert len(paths) > 10
    assert {name for name in paths if not (ROOT / name).exists()} == set()


def test_every_variable_it_names_is_a_setting():
    """Every variable is a setting, a variable of other software, or an error code."""
    others = {
        *(
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "REQUESTS_CA_BUNDLE",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
        ),
        *("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CRASH_LOOP", "MANIFEST_WRITE_FAILED", "GET", "HEAD"),
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
    }
    named = {re.split(r"[=.]", name)[0] for name in QUOTED if re.fullmatch(r"[A-Z][A-Z_]{2,}(=\S+)?", name)}
    assert len(named) > 10
    settings = Settings.model_fields.keys() | TracingSettings.model_fields.keys()
    assert named - others <= {name.upper() for name in settings}


def test_the_roles_on_gke_are_those_it_explains():
    """The commands grant only roles that the document explains."""
    granted = set(ROLE.findall((ROOT / "deploy" / "gke" / "README.md").read_text(encoding="utf-8")))
    assert len(granted) == 6
    assert granted <= set(ROLE.findall(TEXT))
