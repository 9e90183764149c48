"""The commands `templates push | list | get | diff | ...`, for the chart templates that steps use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.operator import audit, log_to_standard_error, require_consent
from daemon.cli.output import OutputFormat, examples
from daemon.cli.places import place_of
from daemon.exit import ExitCode
from daemon.reports.wording import plural
from worker_chart_export.errors import RequestError, shown, visible
from worker_chart_export.inflation import BrokenGzip, InflatedTooLarge, inflated
from worker_chart_export.inputs.flow_run import TEMPLATE_ID, is_template_id
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from daemon.cli.template_check import Review
    from worker_chart_export.charts.chart_img.accounts import Account
    from worker_chart_export.inputs.template import TemplateCatalog

STDOUT = Path("-")
SAMPLE_CANDLES = "data/samples/ohlcv/IBM_1d.json"

app = typer.Typer(
    name="templates",
    help="Manage the chart templates that steps use: the Firestore collection chart_templates.",
    epilog=examples(
        "templates validate templates/*.json",
        "templates diff templates/*.json",
        "templates push templates/*.json",
        "templates get ctpl_price_ma1226_vol_v1",
        "templates render ctpl_price_psar_adi_v1 --output chart.png",
    ),
    no_args_is_help=True,
)

Files = Annotated[
    list[Path],
    typer.Argument(help="JSON files with one template each.", metavar="FILE", exists=True, dir_okay=False),
]


TemplateId = Annotated[str, typer.Argument(help="The id of a stored template.", metavar="ID")]
OutputOption = Annotated[OutputFormat, typer.Option("--output", help="The form of the results.")]


@app.command(epilog=examples("templates push templates/*.json"))
def push(
    paths: Files,
    allow_unknown_keys: Annotated[
        bool,
        typer.Option("--allow-unknown-keys", help="Also store templates with unknown keys."),
    ] = False,
) -> None:
    """Store templates under the id in each file, and say what changed. If one is invalid, none is stored.

    Exit code 0: all are stored. 1: one is invalid. 3: Firestore refuses or does not answer.
    """
    from daemon.cli.template_changes import Change, compare
    from daemon.cli.template_check import review_file

    reviews = [review_file(path) for path in paths]
    refused = [found for found in reviews if not (found.demand if allow_unknown_keys else found.is_good)]
    for found in refused:
        _show(found)
    if refused:
        typer.echo("error: nothing was stored", err=True)
        raise typer.Exit(ExitCode.JOB_FAILED)
    log_to_standard_error()
    with _catalog() as catalog:
        for found in reviews:
            comparison = compare(found.template_id, catalog.document(found.template_id), found.document)
            if comparison.change is not Change.UNCHANGED:
                catalog.put(found.template_id, found.document)
                audit("templates push", comparison.sentence, chartTemplateId=found.template_id)
            typer.echo(comparison.text())


@app.command("list", epilog=examples("templates list", "templates list --studies"))
def list_(
    output: OutputOption = OutputFormat.TEXT,
    studies: Annotated[
        bool, typer.Option("--studies", help="Show the studies and drawings that a template can name.")
    ] = False,
) -> None:
    """Show the stored templates: id, description and what each one draws."""
    from daemon.cli.lists.studies import list_studies

    if studies:
        list_studies(output)
        return
    reviews = _review_stored(())
    _note_if_none(reviews)
    if output is OutputFormat.JSON:
        typer.echo(json.dumps([found.summary() for found in reviews], ensure_ascii=False))
        return
    for found in reviews:
        summary = found.summary()
        typer.echo(f"{found.template_id}  {summary['description']}")
        typer.echo(f"    {', '.join(summary['draws']) or 'price alone'}; {found.state}")


@app.command(
    epilog=examples("templates get ctpl_price_ma1226_vol_v1", "templates get my_template > my_template.json")
)
def get(template_id: TemplateId) -> None:
    """Print a stored template as JSON, in the form that `push` takes.

    Standard error shows its version: the time of its last change, as in `meta.templateVersion`.
    Exit code 1: it is not stored.
    """
    _check_ids([template_id])
    with _catalog() as catalog:
        stored = catalog.read(template_id)
    document = stored.to_dict()
    if document is None or stored.update_time is None:
        raise _not_stored([template_id])
    typer.echo(f"version: {rfc3339(stored.update_time)}", err=True)
    typer.echo(json.dumps({"id": template_id, **document}, ensure_ascii=False, indent=2, default=str))


@app.command(
    epilog=examples("templates diff templates/*.json", "templates diff my_template.json --output json")
)
def diff(paths: Files, output: OutputOption = OutputFormat.TEXT) -> None:
    """Compare files with the stored templates: what `push` would change.

    Exit code 0: all are equal. Exit code 1: a template differs or is not stored.
    """
    from daemon.cli.template_changes import Change, compare
    from daemon.cli.template_check import review_file

    reviews = [review_file(path) for path in paths]
    if broken := [found for found in reviews if not found.document]:
        for found in broken:
            _show(found)
        raise typer.Exit(ExitCode.JOB_FAILED)
    with _catalog() as catalog:
        comparisons = [
            compare(one.template_id, catalog.document(one.template_id), one.document) for one in reviews
        ]
    if output is OutputFormat.JSON:
        typer.echo(json.dumps([one.to_dict() for one in comparisons], ensure_ascii=False, default=str))
    else:
        for one in comparisons:
            typer.echo(one.text())
    are_equal = all(one.change is Change.UNCHANGED for one in comparisons)
    raise typer.Exit(ExitCode.OK if are_equal else ExitCode.JOB_FAILED)


@app.command(epilog=examples("templates delete my_template", "templates delete old_1 old_2 --yes"))
def delete(
    template_ids: Annotated[list[str], typer.Argument(help="The ids of stored templates.", metavar="ID")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete stored templates. Charts that name them fail from then on.

    It shows them and asks. If one is not stored, none is deleted. A template that was
    changed since it was shown is not deleted. Exit code 1: not all were deleted.
    """
    _check_ids(template_ids)
    with _catalog() as catalog:
        found = {template_id: catalog.read(template_id) for template_id in template_ids}
        if missing := [template_id for template_id, stored in found.items() if stored.fields is None]:
            raise _not_stored(missing)
        for template_id, stored in found.items():
            version = rfc3339(stored.update_time) if stored.update_time else ""
            typer.echo(f"{template_id}  version {version}", err=True)
        require_consent(f"Delete {plural(len(found), 'template')}?", yes=yes)
        log_to_standard_error()
        for template_id, stored in found.items():
            catalog.delete(template_id, stored)
            audit("templates delete", f"template {template_id} was deleted", chartTemplateId=template_id)
            typer.echo(f"deleted    {template_id}")


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
    from daemon.cli.template_check import review_file
    from daemon.settings import ChartsApiMode, ChartSettings, load_settings

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
    from daemon.cli.template_check import review

    # The renderer is slow to load, and no other command needs it.
    from worker_chart_export.charts.local.input.candles import parse_candles
    from worker_chart_export.charts.local.render import as_jpeg
    from worker_chart_export.charts.local.render import render as draw

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
    from daemon.clients import firestore_client
    from daemon.settings import FirestoreSettings, load_settings
    from worker_chart_export.inputs.template import TemplateCatalog

    settings = load_settings(FirestoreSettings)
    with closing(firestore_client(settings.google_cloud_project, settings.firestore_db)) as client:
        yield TemplateCatalog(client)


def _review_stored(accounts: Sequence[Account]) -> list[Review]:
    from daemon.cli.template_check import review

    with _catalog() as catalog:
        return [review(name, document, accounts) for name, document in catalog.documents().items()]


def _note_if_none(reviews: Sequence[Review]) -> None:
    if not reviews:
        why = f"no template is stored ({place_of('firestore')})"
        typer.echo(f"note: {why}; `templates push` stores some", err=True)


def _check_ids(template_ids: Sequence[str]) -> None:
    for template_id in template_ids:
        if not is_template_id(template_id):
            expected = f"expected a template's id ({TEMPLATE_ID.pattern})"
            raise typer.BadParameter(f"ID: {expected}, got {shown(template_id)}")


def _not_stored(template_ids: Sequence[str]) -> typer.Exit:
    """Say that these templates are not stored, and return the error to raise."""
    names = ", ".join(visible(name) for name in template_ids)
    typer.echo(f"error: not stored: {names} ({place_of('firestore')})", err=True)
    return typer.Exit(ExitCode.JOB_FAILED)


def _find(template: str) -> Review:
    from daemon.cli.template_check import review, review_file

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
    from worker_chart_export.charts.local.input.candles import MAX_FILE_BYTES

    try:
        content = json.loads(inflated(raw, max_bytes=MAX_FILE_BYTES))
    except (ValueError, RecursionError, BrokenGzip, InflatedTooLarge):
        return {}
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return {name: str(value) for name, value in metadata.items()} if isinstance(metadata, dict) else {}


def _show(found: Review) -> None:
    """Print one template: a line, and another one for each problem and account."""
    typer.echo(f"{'ok' if found.is_good else 'refused':<7}  {found.template_id}  {found.state}")
    for problem in found.problems:
        typer.echo(f"         {problem}")
    for account, verdict in found.accounts.items():
        typer.echo(f"         account {account}: {verdict}")
