"""Run the long chaos tests and print their figures: `python -m tests.chaos`. `--only` selects some."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import TYPE_CHECKING

from localcloud import LocalCloud
from tests.chaos import storm
from tests.chaos.claims import CLAIMS, PROJECT
from tests.chaos.former_version import NoFormerVersion, former_python
from tests.chaos.scenarios.crashes import MORE
from tests.chaos.sigterms import sigterms
from tests.chaos.storm import Storm
from tests.chaos.upgrade import share_an_account, take_over, upgrade
from tests.chaos.world import world_on

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PARALLEL = 6
#: After a long storm there is more work left than after a short one.
CALM_SECONDS = 300.0


def run_storm(seed: int, minutes: float) -> str:
    """Run the storm; print its report even when it shows a violation."""
    try:
        former, note = former_python(), ""
    except NoFormerVersion as reason:
        former, note = None, f"; without a daemon of the former version: {reason}"
    with LocalCloud.start(project=PROJECT, seed=seed) as cloud, world_on(cloud, **storm.SETTINGS) as world:
        running = Storm(world, seed=seed, seconds=minutes * 60, former=former, calm_seconds=CALM_SECONDS)
        try:
            return f"{running.run()}; violations 0{note}"
        except AssertionError as error:
            error.add_note(str(running.report))
            raise


def run_sigterms(seed: int, times: int) -> str:
    """Send SIGTERM at a random moment, `times` times."""
    with LocalCloud.start(project=PROJECT) as cloud, world_on(cloud) as world:
        return sigterms(world, times=times, seed=seed)


def run_upgrade() -> str:
    """Upgrade daemons of the former version under load; let each version take over steps of the other one."""
    former = former_python()
    for dead, heir in ((former, None), (None, former)):
        with LocalCloud.start(project=PROJECT) as cloud, world_on(cloud) as world:
            take_over(world, dead=dead, heir=heir)
    with LocalCloud.start(project=PROJECT) as cloud, world_on(cloud) as world:
        share_an_account(world)
    with LocalCloud.start(project=PROJECT) as cloud, world_on(cloud) as world:
        figures = upgrade(world)
    return f"{figures}; a killed daemon's step taken over both ways; one account spent to its limit by both"


def run_moments() -> str:
    """Kill and freeze a daemon at every moment of a step."""

    def play(name: str) -> None:
        with LocalCloud.start(project=PROJECT) as cloud, world_on(cloud) as world:
            MORE[name](world)

    with ThreadPoolExecutor(MAX_PARALLEL) as pool:
        plays = {pool.submit(play, name): name for name in MORE}
        failed = {plays[done]: error for done in as_completed(plays) if (error := done.exception())}
    assert not failed, failed
    return f"killed, frozen or held at {len(MORE)} moments; violations 0"


def main() -> int:
    """Run the selected parts; return 1 when one of them fails."""
    options = _options()
    parts: dict[str, Callable[[], str]] = {
        **CLAIMS,
        "moments": run_moments,
        "sigterms": partial(run_sigterms, options.seed, options.times),
        "upgrade": run_upgrade,
        "storm": partial(run_storm, options.seed, options.minutes),
    }
    chosen = options.only or list(parts)
    return max([_show(name, parts[name]) for name in chosen])


def _show(name: str, part: Callable[[], str]) -> int:
    started = time.monotonic()
    print(f"{name} ...", flush=True)  # noqa: T201 - a command's output
    try:
        text, code = part(), 0
    except Exception:  # noqa: BLE001 - the other parts are shown all the same
        text, code = f"FAILED\n{traceback.format_exc()}", 1
    print(f"{name}: {text} [{time.monotonic() - started:.0f} s]", flush=True)  # noqa: T201
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long the storm lasts")
    parser.add_argument("--times", type=int, default=50, help="how many SIGTERMs")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="of all chance")
    parser.add_argument("--only", nargs="+", choices=[*CLAIMS, "moments", "sigterms", "upgrade", "storm"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
