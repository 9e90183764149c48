"""The tables of `embedded-cloud.md`: what is served, from the contract cases; the rest from the code.

A case of `tests/contract/test_SERVICE_*.py` names in `@pytest.mark.serves(...)` what it proves. A file's
`pytestmark = pytest.mark.serves(...)` holds for its cases without a mark of their own.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from localcloud.faults import Fault
from localcloud.firestore.unserved import NEUTRAL as FIRESTORE_NEUTRAL
from localcloud.firestore.unserved import UNSERVED as FIRESTORE
from localcloud.pubsub.unserved import NEUTRAL as PUBSUB_NEUTRAL
from localcloud.pubsub.unserved import UNSERVED as PUBSUB
from localcloud.storage.unserved import NEUTRAL as STORAGE_NEUTRAL
from localcloud.storage.unserved import UNSERVED as STORAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DOCS = Path(__file__).parent
CASES = DOCS.parent / "tests/contract"
#: The marks around the generated parts of `embedded-cloud.md`.
TABLES = (
    "<!-- tables: `make reference` writes them from tests/contract and localcloud -->",
    "<!-- end of tables -->",
)
FAULTS = (
    "<!-- faults: `make reference` writes this table from localcloud/faults.py -->",
    "<!-- end of faults -->",
)
#: The fields of a fault that only Python code in the same process can set.
IN_PROCESS = frozenset({"before"})
#: Service -> its title, and what it refuses.
SERVICES: dict[str, tuple[str, Mapping[str, str]]] = {
    "pubsub": ("Pub/Sub", PUBSUB),
    "firestore": ("Firestore", FIRESTORE),
    "storage": ("Cloud Storage", STORAGE),
}
#: Service -> what it accepts although it changes nothing.
NEUTRAL: dict[str, Mapping[str, str]] = {
    "pubsub": PUBSUB_NEUTRAL,
    "firestore": FIRESTORE_NEUTRAL,
    "storage": STORAGE_NEUTRAL,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One case of the contract suite.

    Attributes:
        name: `file.py::function`.
        serves: The RPCs and settings that it proves.
        sentence: The first sentence of its docstring.
    """

    name: str
    serves: tuple[str, ...]
    sentence: str


def cases(service: str) -> list[Case]:
    """Return the cases of a service, in the order of the files and of their lines."""
    return [case for file in sorted(CASES.glob(f"test_{service}_*.py")) for case in _cases(file)]


def _cases(file: Path) -> Iterator[Case]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    marks = [node.value for node in tree.body if isinstance(node, ast.Assign) and _assigns_marks(node)]
    common = _served(marks)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
            yield Case(
                name=f"{file.name}::{node.name}",
                serves=_served(node.decorator_list) or common,
                sentence=" ".join(paragraph.split()),
            )


def _assigns_marks(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)


def _served(marks: list[ast.expr]) -> tuple[str, ...]:
    """Return the arguments of the marks `pytest.mark.serves(...)` among the expressions."""
    calls = (node for mark in marks for node in ast.walk(mark) if isinstance(node, ast.Call))
    return tuple(
        str(ast.literal_eval(argument))
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "serves"
        for argument in call.args
    )


def served(service: str) -> dict[str, list[str]]:
    """Return the sentences of the cases by what they prove, sorted by name."""
    found = defaultdict(list)
    for case in cases(service):
        for name in case.serves:
            found[name].append(case.sentence)
    return dict(sorted(found.items()))


def page() -> str:
    """Return the page on the embedded cloud with its tables."""
    text = (DOCS / "embedded-cloud.md").read_text(encoding="utf-8")
    for marks, content in ((TABLES, tables()), (FAULTS, faults())):
        before, _, rest = text.partition(marks[0])
        _, _, after = rest.partition(marks[1])
        text = f"{before}{marks[0]}\n\n{content}\n\n{marks[1]}{after}"
    return text


def faults() -> str:
    """Return the table of a fault's fields, from its docstring."""
    _, _, attributes = inspect.cleandoc(Fault.__doc__ or "").partition("Attributes:\n")
    meanings = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", attributes, re.MULTILINE)
    defaults = {field.name: json.dumps(field.default) for field in fields(Fault)}
    rows = [
        f"| `{name}` | `{defaults[name]}` | {' '.join(meaning.split())} |"
        for name, meaning in meanings
        if name not in IN_PROCESS
    ]
    return "\n".join(["| field | default | meaning |", "| --- | --- | --- |", *rows])


def tables() -> str:
    """Return the tables of all services in Markdown."""
    parts = []
    for service, (title, unserved) in SERVICES.items():
        rows = [f"| `{name}` | {'<br>'.join(sentences)} |" for name, sentences in served(service).items()]
        if rows:
            parts += [f"### {title}: served", _table("call or setting", "what the cases prove", rows)]
        refused = [f"| `{name}` | {text[:1].upper()}{text[1:]}. |" for name, text in sorted(unserved.items())]
        if refused:
            parts += [f"### {title}: refused", _table("call or setting", "use instead", refused)]
        neutral = [f"| `{name}` | It {text}. |" for name, text in sorted(NEUTRAL[service].items())]
        parts += [f"### {title}: accepted, without effect", _table("setting", "why that is no loss", neutral)]
    return "\n\n".join(parts)


def _table(first: str, second: str, rows: list[str]) -> str:
    return "\n".join([f"| {first} | {second} |", "| --- | --- |", *rows])
