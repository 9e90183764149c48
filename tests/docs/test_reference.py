"""The generated pages are up to date and complete."""

from __future__ import annotations

import pytest

from daemon.settings import Settings
from daemon.settings.tracing import TracingSettings
from docs.reference import DOCS, pages
from worker_chart_export.charts.chart_img.accounts import Account
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event

PAGES = pages()


def rows(name):
    """Return the cells of the rows of a page's tables by the text of their first cell."""
    lines = [line for line in PAGES[name].splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {first.strip("`"): rest for first, *rest in cells}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_up_to_date(name):
    """The page equals the output of `make reference`."""
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name]


@pytest.mark.parametrize("name", PAGES)
def test_every_row_ends_with_a_sentence(name):
    """Every row ends with a sentence."""
    assert [first for first, cells in rows(name).items() if not cells[-1].endswith(".")] == []


def test_every_setting_is_there():
    """Every setting is in the page, also those of tracing and of an account."""
    names = {name.upper() for name in [*Settings.model_fields, *TracingSettings.model_fields]}
    fields = {field.validation_alias or name for name, field in Account.model_fields.items()}
    assert set(rows("configuration.md")) == names | fields


def test_every_event_is_there():
    """Every event is in the page, in the order of the code."""
    assert list(rows("events.md")) == [event.value for event in Event]


def test_every_metric_is_in_the_page():
    """Every metric is in the page under its Prometheus name."""
    families = [family for family in metrics.REGISTRY.collect() if family.name.startswith(metrics.PREFIX)]
    suffixes = {"counter": "_total", "info": "_info"}
    assert set(rows("metrics.md")) == {f"{family.name}{suffixes.get(family.type, '')}" for family in families}
