"""The score of each folder, and the list of the mutants that no test can notice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutation import mutants
from tests.mutation.forks import KILLED, NO_TESTS, SURVIVED, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: One file for each folder of the code, so that changes of different folders don't conflict.
SURVIVORS = Path(__file__).with_name("survivors")
REJECTED, EQUIVALENT, NOT_TRIED = "mypy", "equivalent", "not tried"
TITLES = (
    "package", "mutants", "rejected by mypy", "a test failed", "equivalent", "survived", "not tried",
    "a test failed, of those that mypy lets pass", "killed in all",
)  # fmt: skip

Entry = dict[str, str]


def write(
    files: Mapping[Path, Mapping[str, str]],
    rejected: set[str],
    results: Mapping[str, list[str]],
    *,
    keeps: bool,
) -> int:
    """Print what survives without a reason, and the score of each folder; return 1 if anything survives.

    With `keeps`, list what survives, for the reasons to be filled in, and drop what is killed by now.
    """
    scores: dict[str, Counter[str]] = {}
    not_tried = {
        mutants.function_of(name)
        for names in files.values()
        for name in names.keys() - results.keys() - rejected
    }
    for folder in sorted({path.parent for path in files}):
        mine = {name: path for path in files if path.parent == folder for name in files[path]}
        statuses = {
            name: REJECTED if name in rejected else results.get(name, [NOT_TRIED])[0] for name in mine
        }
        listed = {_key(entry): entry for entry in _listed(folder)}
        survivors = {}
        for name in (name for name, status in statuses.items() if status in {SURVIVED, NO_TESTS}):
            found = _entry(name, mine[name])
            entry = survivors[_key(found)] = listed.get(_key(found), found)
            statuses[name] = EQUIVALENT if entry["why"] else SURVIVED
            if not entry["why"]:
                print(f"{name}\n  - {entry['before']}\n  + {entry['after']}")  # noqa: T201
        scores[_title(folder, files)] = Counter(statuses.values())
        if keeps:
            _list(
                folder,
                {key: entry for key, entry in listed.items() if entry["where"] in not_tried} | survivors,
            )
    print("\n".join(_table(scores)))  # noqa: T201
    return int(any(score[SURVIVED] for score in scores.values()))


def _table(scores: Mapping[str, Counter[str]]) -> Iterable[str]:
    """Yield the lines of the table in `docs/reliability.md`."""
    yield _line(TITLES)
    yield _line(["---"] * len(TITLES))
    for title, score in scores.items():
        yield _line(_cells(title, score))
    if len(scores) > 1:
        yield _line(_cells("all", sum(scores.values(), Counter())))


def _cells(title: str, score: Counter[str]) -> list[str]:
    failed = score[KILLED] + score[TIMEOUT]
    passed = failed + score[SURVIVED]
    counts = [score.total(), score[REJECTED], failed, score[EQUIVALENT], score[SURVIVED], score[NOT_TRIED]]
    shares = [(failed, passed), (failed + score[REJECTED], passed + score[REJECTED])]
    return [
        title,
        *(f"{count:,}" for count in counts),
        *(f"{part / whole:.1%}".replace("%", " %") if whole else "-" for part, whole in shares),
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _title(folder: Path, files: Iterable[Path]) -> str:
    mine = [path for path in files if path.parent == folder]
    return f"`{folder if len(mine) > 1 else mine[0]}`"


def _entry(name: str, path: Path) -> Entry:
    before, after = mutants.change_of(name, path)
    return {"where": mutants.function_of(name), "before": before, "after": after, "why": ""}


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry["where"], entry["before"], entry["after"]


def _file(folder: Path) -> Path:
    return SURVIVORS / f"{'.'.join(folder.parts)}.json"


def _listed(folder: Path) -> list[Entry]:
    path = _file(folder)
    return json.loads(path.read_text()) if path.exists() else []


def _list(folder: Path, entries: Mapping[tuple[str, str, str], Entry]) -> None:
    if not entries:
        _file(folder).unlink(missing_ok=True)
        return
    SURVIVORS.mkdir(exist_ok=True)
    text = json.dumps([entries[key] for key in sorted(entries)], indent=1, ensure_ascii=False)
    _file(folder).write_text(text + "\n")
