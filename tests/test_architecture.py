"""The shape of the code: owners of SDKs, sizes of files and functions, names of modules.

`import-linter` checks the directions between modules (see `pyproject.toml`). It can't read the `google.cloud`
namespace, so the owners of the SDKs are checked here. Each check also has a test on code that breaks its
rule.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("worker_chart_export", "daemon", "localcloud")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
VAGUE_NAMES = {
    "utils",
    "util",
    "common",
    "helpers",
    "helper",
    "manager",
    "managers",
    "misc",
    "tools",
}

#: SDK (a module and all below it) -> the files of worker_chart_export and daemon that import it at run time.
#: The demo builds a whole cloud, so one of its files may import all of these SDKs.
OWNERS = {
    ("google.cloud.pubsub_v1", "google.pubsub_v1"): {
        "daemon/subscription/stream.py",
        "daemon/subscription/admin.py",
        "daemon/subscription/client_clock.py",
        "daemon/subscription/client_threads.py",
        "daemon/subscription/delivery_window.py",
        "daemon/subscription/held_messages.py",
        "daemon/subscription/publisher.py",
        "daemon/cli/demo/resources.py",
    },
    ("google.cloud.firestore", "google.cloud.firestore_v1"): {
        "worker_chart_export/backends/firestore_calls.py",
        "worker_chart_export/backends/firestore_values.py",
        "worker_chart_export/backends/firestore_client.py",
        "worker_chart_export/backends/firestore_pages.py",
        "worker_chart_export/backends/firestore_writes.py",
        "worker_chart_export/fleet/heartbeat.py",
        "worker_chart_export/ledger/expired_leases.py",
        "worker_chart_export/ledger/heartbeats.py",
        "worker_chart_export/ledger/listing.py",
        "worker_chart_export/ledger/decisions.py",
        "daemon/cli/demo/resources.py",
    },
    ("google.cloud.storage",): {
        "worker_chart_export/backends/storage.py",
        "daemon/clients.py",
        "daemon/cli/demo/resources.py",
    },
    ("requests",): {
        "worker_chart_export/backends/connections.py",
        "worker_chart_export/backends/errors.py",
        "worker_chart_export/backends/http.py",
        "worker_chart_export/backends/storage_session.py",
    },
    ("urllib3",): {
        "worker_chart_export/charts/chart_img/client.py",
        "worker_chart_export/backends/connections.py",
        "worker_chart_export/backends/http.py",
        "worker_chart_export/backends/storage.py",
        "worker_chart_export/backends/storage_session.py",
    },
    ("prometheus_client",): {"worker_chart_export/observability/metrics.py"},
    ("structlog",): {
        "worker_chart_export/observability/console.py",
        "worker_chart_export/observability/logs.py",
    },
    ("opentelemetry",): {
        "daemon/tracing/export.py",
        "daemon/tracing/publishing.py",
        "daemon/tracing/spans.py",
        "daemon/tracing/propagation.py",
    },
    ("opentelemetry.sdk", "opentelemetry.exporter"): {"daemon/tracing/export.py"},
    ("fastjsonschema",): {"worker_chart_export/outputs/manifest.py"},
    ("pydantic", "pydantic_core"): {
        "worker_chart_export/charts/chart_img/accounts.py",
        "daemon/settings/accounts.py",
        "daemon/settings/base.py",
        "daemon/settings/export.py",
        "daemon/settings/daemon.py",
        "daemon/settings/loading.py",
        "daemon/settings/tracing.py",
    },
}
#: The same for imports only for annotations.
TYPE_USERS = {
    ("google.cloud.pubsub_v1", "google.pubsub_v1"): {
        "daemon/subscription/callback.py",
    },
}

Sources = dict[str, str]


@cache
def _read_sources() -> Sources:
    """Return path -> source of everything that is shipped."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def _tree(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def _nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(_tree(source)))


@cache
def _imports(source: str, *, for_types: bool) -> set[str]:
    """Return the modules that a file imports at run time, or those for annotations only."""
    typing_nodes = {
        id(node) for block in _nodes(source) if _is_type_checking(block) for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in _nodes(source):
        if not isinstance(node, ast.Import | ast.ImportFrom) or (id(node) in typing_nodes) is not for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def users_of(sdk: tuple[str, ...], sources: Sources, *, for_types: bool = False) -> set[str]:
    """Return the files that import one of the SDK's modules."""
    return {
        path
        for path, source in sources.items()
        for name in _imports(source, for_types=for_types)
        if any(name == module or name.startswith(f"{module}.") for module in sdk)
        and not path.startswith("localcloud/")
    }


def _functions(source: str) -> list[tuple[str, int]]:
    """Return name and number of body lines, without docstring, of each function."""
    found = []
    for node in _nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body and body[-1].end_lineno else 0
            found.append((node.name, lines))
    return found


def files_too_long(sources: Sources) -> list[str]:
    """Return files of more than 400 lines."""
    return [path for path, source in sources.items() if len(source.splitlines()) > MAX_FILE_LINES]


def functions_too_long(sources: Sources) -> list[str]:
    """Return functions of more than 40 lines."""
    return [
        f"{path}:{name}"
        for path, source in sources.items()
        for name, lines in _functions(source)
        if lines > MAX_FUNCTION_LINES
    ]


def vague_module_names(sources: Sources) -> list[str]:
    """Return files and folders with names such as `utils` or `common`."""
    return [path for path in sources if VAGUE_NAMES & set(Path(path).with_suffix("").parts)]


def without_docstring(sources: Sources) -> list[str]:
    """Return files without a module docstring."""
    return [path for path, source in sources.items() if ast.get_docstring(_tree(source)) is None]


@pytest.mark.parametrize("sdk", OWNERS, ids=lambda sdk: sdk[0])
def test_each_sdk_is_imported_by_its_owners_alone(sdk):
    """Exactly the listed files import each SDK."""
    assert users_of(sdk, _read_sources()) == OWNERS[sdk]


@pytest.mark.parametrize("sdk", TYPE_USERS, ids=lambda sdk: sdk[0])
def test_an_sdk_s_types_are_named_by_few(sdk):
    """Few files import an SDK's types for annotations."""
    assert users_of(sdk, _read_sources(), for_types=True) - OWNERS[sdk] == TYPE_USERS[sdk]


@pytest.mark.parametrize(
    "line",
    [
        "import google.cloud.storage",
        "from google.cloud import storage",
        "from google.cloud.storage.retry import DEFAULT_RETRY",
        "def f():\n    import google.cloud.storage as s",
    ],
)
def test_an_import_by_another_file_is_found(line):
    """An import by any other file is found, and imports for annotations only are separate."""
    sdk = ("google.cloud.storage",)
    assert users_of(sdk, {"daemon/x.py": line}) == {"daemon/x.py"}
    typed = {"daemon/x.py": "if TYPE_CHECKING:\n    from google.cloud import storage"}
    assert users_of(sdk, typed) == set()
    assert users_of(sdk, typed, for_types=True) == {"daemon/x.py"}


def test_a_similar_name_is_another_sdk():
    """`google.cloud.storage_control` is not part of `google.cloud.storage`."""
    assert users_of(("google.cloud.storage",), {"x.py": "import google.cloud.storage_control"}) == set()


def test_files_are_short():
    """No file has more than 400 lines."""
    assert files_too_long(_read_sources()) == []


def test_functions_are_short():
    """No function has more than 40 lines."""
    assert functions_too_long(_read_sources()) == []


def test_no_module_is_a_bucket():
    """No module has a name such as `utils` or `common`."""
    assert vague_module_names(_read_sources()) == []


def test_every_module_has_a_docstring():
    """Every module has a docstring."""
    assert without_docstring(_read_sources()) == []


def test_code_against_the_rules_is_found():
    """Each check finds code that breaks its rule and accepts code at its limit."""
    long_function = "def f():\n" + "    x = 1\n" * 41
    sources = {
        "daemon/utils.py": long_function,
        "daemon/common/good.py": '"""Says."""\n' + "x = 1\n" * 400,
        "daemon/good.py": '"""Says."""\n' + "x = 1\n" * 399,
        "daemon/fine.py": '"""Says."""\ndef g():\n    """Doc."""\n' + "    x = 1\n" * 40,
    }
    assert files_too_long(sources) == ["daemon/common/good.py"]
    assert functions_too_long(sources) == ["daemon/utils.py:f"]
    assert vague_module_names(sources) == ["daemon/utils.py", "daemon/common/good.py"]
    assert without_docstring(sources) == ["daemon/utils.py"]
