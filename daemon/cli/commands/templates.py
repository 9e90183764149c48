"""`templates push | list | validate | render`: keep the chart templates that steps name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.template_check import Review, review, review_file
from daemon.composition import chart_img_account, firestore_client
from daemon.exit import ExitCode
from daemon.settings.daemon import ChartsApiMode, ChartSettings, FirestoreSettings, load_settings
from worker_chart_export.errors import RequestError
from worker_chart_export.inputs.template_catalog import TemplateCatalog

if TYPE_CHECKING:
    from worker_chart_export.charts.chart_img.accounts import Account

NAME = "templates"
EXAMPLES = (
    "Examples: worker-chart-export templates validate templates/*.json | "
    "worker-chart-export templates push templates/*.json | "
    "worker-chart-export templates render ctpl_price_psar_adi_v1 --output chart.png"
)
PUSH_EXAMPLES = "Examples: worker-chart-export templates push templates/*.json"
LIST_EXAMPLES = (
    "Examples: worker-chart-export templates list | worker-chart-export templates list --output json"
)
VALIDATE_EXAMPLES = (
    "Examples: worker-chart-export templates validate | "
    "worker-chart-export templates validate templates/*.json"
)
RENDER_EXAMPLES = (
    "Examples: worker-chart-export templates render my_template.json --output chart.png | "
    "worker-chart-export templates render ctpl_price_psar_adi_v1 --candles IBM_1w.json --output chart.png"
)
SAMPLE_CANDLES = "data/samples/ohlcv/IBM_1d.json"

app = typer.Typer(
    name=NAME,
    help="Keep the chart templates that steps name: Firestore's collection chart_templates.",
    epilog=EXAMPLES,
    no_args_is_help=True,
)

Files = Annotated[
    list[Path],
    typer.Argument(help="JSON files with one template each.", metavar="FILE...", exists=True, dir_okay=False),
]


class Output(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", help="How to print it.")]


@app.command(epilog=PUSH_EXAMPLES)
def push(
    paths: Files,
    allow_unknown_keys: Annotated[
        bool,
        typer.Option("--allow-unknown-keys", help="Store templates with keys this version does not know."),
    ] = False,
) -> None:
    """Store templates under the `id` each file holds; none is stored unless all are valid."""
    reviews = [review_file(path) for path in paths]
    refused = [found for found in reviews if not (found.demand if allow_unknown_keys else found.is_good)]
    for found in refused:
        _show(found)
    if refused:
        raise typer.Exit(ExitCode.JOB_FAILED)
    with _catalog() as catalog:
        for found in reviews:
            change = catalog.put(found.template_id, found.document)
            typer.echo(f"{change:<9}  {found.template_id}")


@app.command("list", epilog=LIST_EXAMPLES)
def list_(output: OutputOption = Output.TEXT) -> None:
    """Show the templates that are stored: id, description and what each one draws."""
    with _catalog() as catalog:
        reviews = [review(template_id, document) for template_id, document in catalog.documents().items()]
    if output is Output.JSON:
        typer.echo(json.dumps([_summary(found) for found in reviews], ensure_ascii=False))
        return
    for found in reviews:
        summary = _summary(found)
        typer.echo(f"{found.template_id}  {summary['description']}")
        typer.echo(f"    {', '.join(summary['draws']) or 'price alone'}; {_state(found)}")


@app.command(epilog=VALIDATE_EXAMPLES)
def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="JSON files with one template each; without any, those that are stored.",
            metavar="[FILE...]",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check templates, and say which of the configured Chart-IMG accounts can make each.

    Exits with 1 when one is refused, or fits no account.
    """
    accounts = _accounts()
    reviews = [review_file(path, accounts) for path in paths] if paths else _reviews_of_stored(accounts)
    if output is Output.JSON:
        typer.echo(json.dumps([_verdict(found) for found in reviews], ensure_ascii=False))
    else:
        for found in reviews:
            _show(found)
        good = sum(found.is_good for found in reviews)
        typer.echo(f"{good} of {len(reviews)} templates are good")
    raise typer.Exit(ExitCode.OK if all(found.is_good for found in reviews) else ExitCode.JOB_FAILED)


@app.command(epilog=RENDER_EXAMPLES)
def render(
    template: Annotated[
        str, typer.Argument(help="A template's JSON file, or the id of a stored one.", metavar="TEMPLATE")
    ],
    output: Annotated[Path, typer.Option(help="The PNG to write.", dir_okay=False)],
    candles: Annotated[
        Path | None,
        typer.Option(help="An OHLCV JSON file; daily prices of IBM if absent.", exists=True, dir_okay=False),
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="For the legend; else the candle file's own.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Such as 1d; else the candle file's own.")] = None,
    timezone: Annotated[str, typer.Option(help="Of the time axis.")] = "Etc/UTC",
) -> None:
    """Draw a template to a PNG as CHARTS_API_MODE=local would; nothing is asked of Chart-IMG."""
    # The renderer takes long to load, and no other command needs it.
    from worker_chart_export.charts.local.render import render as draw  # noqa: PLC0415

    found = _find(template)
    if found.demand is None:
        _show(found)
        raise typer.Exit(ExitCode.JOB_FAILED)
    raw = candles.read_bytes() if candles else _sample_candles()
    own = _metadata(raw)
    body = {**found.document["request"], "timezone": timezone}
    try:
        drawn = draw(
            raw,
            body,
            symbol=symbol or own.get("symbol", "?"),
            timeframe=timeframe or own.get("timeframe", "1d"),
        )
    except RequestError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(ExitCode.JOB_FAILED) from error
    _write(output, drawn.png)
    facts = drawn.facts
    typer.echo(
        f"{output}: {len(drawn.png)} bytes, {facts['candles']} candles to {facts['lastBar']}, "
        f"{found.demand.width}x{found.demand.height}"
    )


@contextmanager
def _catalog() -> Iterator[TemplateCatalog]:
    settings = load_settings(FirestoreSettings)
    client = firestore_client(settings.google_cloud_project, settings.firestore_db)
    try:
        yield TemplateCatalog(client)
    finally:
        client.close()


def _accounts() -> list[Account]:
    """The accounts that are configured, if any; the worker's mode does not matter here."""
    settings = load_settings(ChartSettings, charts_api_mode=ChartsApiMode.LOCAL)
    if settings.chart_img_accounts_json is None:
        return []
    return [chart_img_account(given) for given in settings.accounts]


def _reviews_of_stored(accounts: list[Account]) -> list[Review]:
    with _catalog() as catalog:
        return [review(name, document, accounts) for name, document in catalog.documents().items()]


def _find(template: str) -> Review:
    path = Path(template)
    if path.suffix == ".json" or path.is_file():
        return _review_readable(path)
    with _catalog() as catalog:
        document = catalog.document(template)
    if document is None:
        raise typer.BadParameter(f"TEMPLATE: neither a file nor a stored template: {template}")
    return review(template, document)


def _review_readable(path: Path) -> Review:
    try:
        return review_file(path)
    except OSError as error:
        raise typer.BadParameter(
            f"TEMPLATE: expected a readable file, got {path} ({error.strerror})"
        ) from error


def _sample_candles() -> bytes:
    return files("worker_chart_export").joinpath(SAMPLE_CANDLES).read_bytes()


def _metadata(raw: bytes) -> dict[str, str]:
    """What the file says of itself; whether it holds candles, the renderer finds out."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return {name: str(value) for name, value in metadata.items()} if isinstance(metadata, dict) else {}


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise typer.BadParameter(f"--output: can't write {path} ({error.strerror})") from error


def _show(found: Review) -> None:
    """One template in words: a line, and one more for each problem and account."""
    typer.echo(f"{'ok' if found.is_good else 'refused':<7}  {found.template_id}  {_state(found)}")
    for problem in found.problems:
        typer.echo(f"         {problem}")
    for account, word in found.accounts.items():
        typer.echo(f"         account {account}: {word}")


def _state(found: Review) -> str:
    if found.demand is None:
        return "invalid"
    demand = found.demand
    plural = "" if demand.parameters == 1 else "s"
    return f"{demand.width}x{demand.height}, {demand.parameters} parameter{plural}"


def _summary(found: Review) -> dict[str, Any]:
    request = found.document.get("request") if found.demand else None
    entries = [*request.get("studies", []), *request.get("drawings", [])] if request else []
    return {
        "id": found.template_id,
        "description": str(found.document.get("description", "")),
        "draws": [entry["name"] for entry in entries],
        "valid": found.demand is not None,
    }


def _verdict(found: Review) -> dict[str, Any]:
    return {
        "id": found.template_id,
        "good": found.is_good,
        "problems": list(found.problems),
        "accounts": dict(found.accounts),
    }
