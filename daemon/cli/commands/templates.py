"""The commands `templates push | list | validate | render`, for the chart templates that steps use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.output import OutputFormat, examples, plural
from daemon.cli.places import place_of
from daemon.cli.template_check import Review, review, review_file
from daemon.clients import firestore_client
from daemon.exit import ExitCode
from daemon.settings import ChartsApiMode, ChartSettings, FirestoreSettings, load_settings
from worker_chart_export.charts.catalogue import DrawingEntry, StudyEntry, catalogue
from worker_chart_export.errors import RequestError
from worker_chart_export.inflation import BrokenGzip, InflatedTooLarge, inflated
from worker_chart_export.inputs.flow_run import is_template_id
from worker_chart_export.inputs.template import TemplateCatalog

if TYPE_CHECKING:
    from worker_chart_export.charts.catalogue import Parameter
    from worker_chart_export.charts.chart_img.accounts import Account

STDOUT = Path("-")
SAMPLE_CANDLES = "data/samples/ohlcv/IBM_1d.json"

app = typer.Typer(
    name="templates",
    help="Manage the chart templates that steps use: the Firestore collection chart_templates.",
    epilog=examples(
        "templates validate templates/*.json",
        "templates push templates/*.json",
        "templates render ctpl_price_psar_adi_v1 --output chart.png",
    ),
    no_args_is_help=True,
)

Files = Annotated[
    list[Path],
    typer.Argument(help="JSON files with one template each.", metavar="FILE", exists=True, dir_okay=False),
]


OutputOption = Annotated[OutputFormat, typer.Option("--output", help="The form of the results.")]


@app.command(epilog=examples("templates push templates/*.json"))
def push(
    paths: Files,
    allow_unknown_keys: Annotated[
        bool,
        typer.Option("--allow-unknown-keys", help="Also store templates with unknown keys."),
    ] = False,
) -> None:
    """Store templates under the id in each file. If one is invalid, none is stored."""
    reviews = [review_file(path) for path in paths]
    refused = [found for found in reviews if not (found.demand if allow_unknown_keys else found.is_good)]
    for found in refused:
        _show(found)
    if refused:
        typer.echo("error: nothing was stored", err=True)
        raise typer.Exit(ExitCode.JOB_FAILED)
    with _catalog() as catalog:
        for found in reviews:
            change = catalog.put(found.template_id, found.document)
            typer.echo(f"{change:<9}  {found.template_id}")


@app.command("list", epilog=examples("templates list", "templates list --studies"))
def list_(
    output: OutputOption = OutputFormat.TEXT,
    studies: Annotated[
        bool, typer.Option("--studies", help="Show the studies and drawings that a template can name.")
    ] = False,
) -> None:
    """Show the stored templates: id, description and what each one draws."""
    if studies:
        _list_studies(output)
        return
    reviews = _review_stored(())
    _note_if_none(reviews)
    if output is OutputFormat.JSON:
        typer.echo(json.dumps([_summary(found) for found in reviews], ensure_ascii=False))
        return
    for found in reviews:
        summary = _summary(found)
        typer.echo(f"{found.template_id}  {summary['description']}")
        typer.echo(f"    {', '.join(summary['draws']) or 'price alone'}; {_state(found)}")


def _list_studies(output: OutputFormat) -> None:
    """Print the documented studies and drawings with their inputs."""
    table = catalogue()
    entries: list[StudyEntry | DrawingEntry] = [*table.studies.values(), *table.drawings.values()]
    if output is OutputFormat.JSON:
        rows = [
            {
                "kind": "drawing" if isinstance(entry, DrawingEntry) else "study",
                "name": entry.name,
                "input": {key: _described(one) for key, one in entry.inputs.items()},
                "override": {key: _described(one) for key, one in entry.overrides.items()},
            }
            for entry in entries
        ]
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for entry in entries:
        place = "drawing"
        if isinstance(entry, StudyEntry):
            place = "own pane" if entry.own_pane else "over the price"
        typer.echo(f"{entry.name}  ({place})")
        for key, one in entry.inputs.items():
            meaning = f" {one.meaning}," if one.meaning and one.meaning != key else ""
            typer.echo(f"    {key}:{meaning} {one.expected}{_default(one)}")


def _default(parameter: Parameter) -> str:
    return "" if parameter.default is None else f", default {parameter.default}"


def _described(parameter: Parameter) -> dict[str, Any]:
    return {
        "type": parameter.kind.value,
        "expected": parameter.expected,
        "default": parameter.default,
        "means": parameter.meaning,
    }


@app.command(epilog=examples("templates validate", "templates validate templates/*.json"))
def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="JSON files with one template each. Default: all stored templates.",
            metavar="FILE",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    output: OutputOption = OutputFormat.TEXT,
) -> None:
    """Check templates, and show which of the configured Chart-IMG accounts can make each chart.

    Exit code 1: a template is invalid, or no account can make its chart.
    """
    settings = load_settings(ChartSettings, charts_api_mode=ChartsApiMode.LOCAL)  # accounts are optional
    has_accounts = settings.chart_img_accounts_json is not None
    accounts = settings.accounts if has_accounts else []
    reviews = [review_file(path, accounts) for path in paths] if paths else _review_stored(accounts)
    _note_if_none(reviews)
    if output is OutputFormat.JSON:
        verdicts = [
            {
                "id": found.template_id,
                "good": found.is_good,
                "problems": list(found.problems),
                "accounts": dict(found.accounts),
            }
            for found in reviews
        ]
        typer.echo(json.dumps(verdicts, ensure_ascii=False))
    else:
        for found in reviews:
            _show(found)
        good = sum(found.is_good for found in reviews)
        typer.echo(f"{good} of {len(reviews)} templates are good")
    raise typer.Exit(ExitCode.OK if all(found.is_good for found in reviews) else ExitCode.JOB_FAILED)


@app.command(
    epilog=examples(
        "templates render my_template.json --output chart.png",
        "templates render ctpl_price_psar_adi_v1 --candles IBM_1w.json --output chart.png",
        "templates render my_template.json --output chart.png --values -",
    )
)
def render(
    template: Annotated[
        str,
        typer.Argument(help="A JSON file with a template, or the id of a stored one.", metavar="TEMPLATE"),
    ],
    output: Annotated[Path, typer.Option(help="The picture to write.", dir_okay=False)],
    candles: Annotated[
        Path | None,
        typer.Option(help="An OHLCV JSON file. Default: daily prices of IBM.", exists=True, dir_okay=False),
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="For the legend. Default: as in the candle file.")
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option(help="For example 1d. Default: as in the candle file.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="The time zone of the time axis.")] = "Etc/UTC",
    values: Annotated[
        Path | None,
        typer.Option(help="A JSON file for the numbers of the chart; - for standard output.", dir_okay=False),
    ] = None,
) -> None:
    """Draw a template to a PNG, or to a JPEG if its `format` says so, without Chart-IMG."""
    # The renderer is slow to load, and no other command needs it.
    from worker_chart_export.charts.local.input.candles import parse_candles  # noqa: PLC0415
    from worker_chart_export.charts.local.render import as_jpeg  # noqa: PLC0415
    from worker_chart_export.charts.local.render import render as draw  # noqa: PLC0415

    found = _find(template)
    is_jpeg = found.document.get("request", {}).get("format") == "jpeg"
    if is_jpeg:  # only a step's charts must be PNG files
        request = {key: value for key, value in found.document["request"].items() if key != "format"}
        found = review(found.template_id, {**found.document, "request": request})
    if found.demand is None:
        _show(found)
        raise typer.Exit(ExitCode.JOB_FAILED)
    raw = (candles or files("worker_chart_export").joinpath(SAMPLE_CANDLES)).read_bytes()
    metadata = _metadata(raw)
    body = {**found.document["request"], "timezone": timezone}
    symbol = symbol or metadata.get("symbol", "?")
    timeframe = timeframe or metadata.get("timeframe", "1d")
    try:
        bars = parse_candles(raw, symbol=symbol, timeframe=timeframe)
        drawn = draw(bars, body, symbol=symbol, timeframe=timeframe, with_values=values is not None)
    except RequestError as error:
        typer.echo(f"error: {candles or 'the sample candles'}: {error}", err=True)
        raise typer.Exit(ExitCode.JOB_FAILED) from error
    picture = as_jpeg(drawn.png) if is_jpeg else drawn.png
    _write("--output", output, picture)
    if values is not None:
        _write_numbers(values, drawn.values)
    facts = drawn.facts
    typer.echo(
        f"{output}: {len(picture)} bytes, {facts['candles']} candles to {facts['lastBar']['date']}, "
        f"{found.demand.width}x{found.demand.height}",
        err=values == STDOUT,
    )


def _write_numbers(path: Path, numbers: Mapping[str, Any] | None) -> None:
    text = json.dumps(numbers, ensure_ascii=False)
    if path == STDOUT:
        typer.echo(text)
    else:
        _write("--values", path, f"{text}\n".encode())


def _write(option: str, path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise typer.BadParameter(f"{option}: can't write {path} ({error.strerror})") from error


@contextmanager
def _catalog() -> Iterator[TemplateCatalog]:
    settings = load_settings(FirestoreSettings)
    with closing(firestore_client(settings.google_cloud_project, settings.firestore_db)) as client:
        yield TemplateCatalog(client)


def _review_stored(accounts: Sequence[Account]) -> list[Review]:
    with _catalog() as catalog:
        return [review(name, document, accounts) for name, document in catalog.documents().items()]


def _note_if_none(reviews: Sequence[Review]) -> None:
    if not reviews:
        why = f"no template is stored ({place_of('firestore')})"
        typer.echo(f"note: {why}; `templates push` stores some", err=True)


def _find(template: str) -> Review:
    path = Path(template)
    if not is_template_id(template) or path.is_file():  # only an id can be that of a stored template
        try:
            return review_file(path)
        except OSError as error:
            why = f"expected a readable file, got {path} ({error.strerror})"
            raise typer.BadParameter(f"TEMPLATE: {why}") from error
    with _catalog() as catalog:
        document = catalog.document(template)
    if document is None:
        where = f"a file here nor stored ({place_of('firestore')})"
        raise typer.BadParameter(f"TEMPLATE: the template {template} is neither {where}")
    return review(template, document)


def _metadata(raw: bytes) -> dict[str, str]:
    """Return the metadata in the candle file. The renderer checks the candles."""
    from worker_chart_export.charts.local.input.candles import MAX_FILE_BYTES  # noqa: PLC0415

    try:
        content = json.loads(inflated(raw, max_bytes=MAX_FILE_BYTES))
    except (ValueError, RecursionError, BrokenGzip, InflatedTooLarge):
        return {}
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return {name: str(value) for name, value in metadata.items()} if isinstance(metadata, dict) else {}


def _show(found: Review) -> None:
    """Print one template: a line, and another one for each problem and account."""
    typer.echo(f"{'ok' if found.is_good else 'refused':<7}  {found.template_id}  {_state(found)}")
    for problem in found.problems:
        typer.echo(f"         {problem}")
    for account, verdict in found.accounts.items():
        typer.echo(f"         account {account}: {verdict}")


def _state(found: Review) -> str:
    if found.demand is None:
        return "invalid"
    demand = found.demand
    return f"{demand.width}x{demand.height}, {plural(demand.parameters, 'parameter')}"


def _summary(found: Review) -> dict[str, Any]:
    request = found.document.get("request") if found.demand else None
    entries = [*request.get("studies", []), *request.get("drawings", [])] if request else []
    return {
        "id": found.template_id,
        "description": str(found.document.get("description", "")),
        "draws": [entry["name"] for entry in entries],
        "valid": found.demand is not None,
    }
