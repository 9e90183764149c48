"""The Grafana dashboard: its queries use existing series, its grid is full, its links are valid."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.settings import Settings
from localcloud import LocalCloud
from tests.support.cloud.resources import asked, deployment_on
from tests.support.deploy.dashboard import (
    VARIABLES,
    everything_named,
    queries_of,
    read_dashboard,
    substituted,
)
from tests.support.deploy.selections import labels_left, selectors_of
from tests.support.process.daemons import ROOT

DASHBOARD = read_dashboard(ROOT / "deploy" / "grafana" / "worker-chart-export.json")
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
#: Types of panels that show one value of a series.
REDUCED = [panel for panel in PANELS if "reduceOptions" in panel["options"]]
QUERIES = queries_of(DASHBOARD)
ALERTS = set(
    re.findall(
        r"- alert: (\w+)", (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8")
    )
)
#: Labels that Prometheus adds to a target's series. The scrape configuration adds the namespace.
OF_THE_TARGET = {"job", "namespace", "instance"}
#: Prometheus' own series and label values. None = any value.
OF_PROMETHEUS = {
    "ALERTS": {"alertname": None, "severity": None, "alertstate": {"pending", "firing"}},
}
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Metrics that no incident needs.
NOT_SHOWN = {"process_virtual_memory_bytes", "python_info"}
LABEL = re.compile(r"{{\s*(\w+)\s*}}")


@pytest.fixture(scope="module")
def families():
    """Return the metrics that a running daemon exposes on /metrics."""
    with (
        LocalCloud.start() as cloud,
        deployment_on(cloud.environment(), cloud) as deployment,
        deployment.daemon().started() as daemon,
    ):
        text = asked(daemon, "metrics").text
    return list(text_string_to_metric_families(text))


@pytest.fixture(scope="module")
def series(families):
    """Return name -> label -> its values."""
    known = {}
    for family in families:
        for sample in family.samples:
            labels = known.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return known | OF_PROMETHEUS


def titles(panels):
    """Return the panels' titles, for readable failures."""
    return [panel["title"] for panel in panels]


def test_it_can_be_imported_as_it_is():
    """The dashboard can be imported: Grafana's current schema, a uid and no database id."""
    assert DASHBOARD["schemaVersion"] == 42
    assert DASHBOARD["id"] is None
    assert re.fullmatch(r"[a-z-]{8,40}", DASHBOARD["uid"])
    assert not {"__inputs", "__requires"} & DASHBOARD.keys()


def test_ids_and_titles_are_unique():
    """Panel ids and titles are unique; links use the ids."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) > 40
    assert len(set(titles(DASHBOARD["panels"]))) == len(ids)


def _overlap(one, other):
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def test_panels_lie_beside_each_other_and_below_their_row():
    """Panels fill each row of the grid without overlap, below the heading of their row."""
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert [pair for pair in combinations(places, 2) if _overlap(*pair)] == []
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS for place in places)
    height = max(place["y"] + place["h"] for place in places)
    assert sum(place["w"] * place["h"] for place in places) == COLUMNS * height
    assert places == sorted(places, key=lambda place: (place["y"], place["x"]))


def test_the_rows_are_in_order_of_urgency():
    """The rows come in order of urgency: working, behind, failing and why, then details."""
    assert titles(ROWS) == [
        "Is it working?",
        "Is it falling behind?",
        "What fails, and why?",
        "How fast is it?",
        "How much quota is left?",
        "Who has the leases?",
        "How are the processes?",
    ]
    assert DASHBOARD["panels"][0] is ROWS[0]


def test_every_panel_has_a_unit_thresholds_and_a_description():
    """Every panel has a unit, thresholds and a description, so that its value can be understood."""
    assert [p["title"] for p in PANELS if not p["fieldConfig"]["defaults"]["unit"]] == []
    assert [p["title"] for p in PANELS if not p["fieldConfig"]["defaults"]["thresholds"]["steps"]] == []
    assert [p["title"] for p in PANELS if len(p["description"]) < 25] == []
    assert [p["title"] for p in PANELS if not p["targets"]] == []


def test_data_comes_from_the_source_that_is_chosen_and_no_other():
    """All panels use the chosen data source; only annotations use Grafana's own."""
    sources = list(everything_named(DASHBOARD, "datasource"))
    assert len(sources) > 2 * len(PANELS)
    assert [source for source in sources if source != SOURCE] == [{"type": "grafana", "uid": "-- Grafana --"}]


def test_the_variables_are_those_that_the_queries_use(series):
    """The variables are those of the queries, and each is filled from an existing series and label."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "namespace", "instance", "docs"]
    for name in ("job", "namespace", "instance"):
        query = substituted(variables[name]["query"]["query"])
        asked_for, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        ((selector, _),) = selectors_of(asked_for)
        assert selector.name in series
        assert label == name
    named = set(re.findall(r"\$\w+", " ".join(query.text for query in QUERIES)))
    assert named == VARIABLES.keys()


def test_a_worker_without_a_namespace_is_shown_too():
    """The choice All includes workers without a namespace label."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert (variables["namespace"]["allValue"], variables["instance"]["allValue"]) == (".*", ".*")
    assert "allValue" not in variables["job"]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_each_query_uses_existing_series(query, series):
    """Each query parses as PromQL and uses existing series, labels, values and legend labels."""
    assert "$" not in query.promql
    for selector, _ in selectors_of(query.promql):
        known = series[selector.name]
        for matcher in selector.matchers.matchers:
            if matcher.name not in OF_THE_TARGET and known[matcher.name] is not None:
                assert set(matcher.value.split("|")) <= known[matcher.name]
    all_labels = {name: labels.keys() | OF_THE_TARGET for name, labels in series.items()}
    assert set(LABEL.findall(query.legend)) <= labels_left(query.promql, all_labels)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_each_query_is_of_the_workers_chosen(query):
    """Each selector of the worker's series has all three variables; Prometheus' own alerts have none."""
    for selector, _ in selectors_of(query.promql):
        filtered = {matcher.name for matcher in selector.matchers.matchers}
        assert filtered >= OF_THE_TARGET or selector.name in OF_PROMETHEUS


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_counters_are_queried_as_rates_and_gauges_as_values(query, families):
    """Counters are queried as rates, gauges as values."""
    kinds = {sample.name: family.type for family in families for sample in family.samples}
    for selector, around in selectors_of(query.promql):
        grows = kinds.get(selector.name) in {"counter", "histogram"}
        assert (around[-1:] in {("rate",), ("increase",)}) is grows


def _is_of_now(target):
    return target["instant"] and not target["range"]


@pytest.mark.parametrize("panel", REDUCED, ids=lambda panel: panel["title"])
def test_a_stat_panel_shows_the_current_value(panel):
    """Stat panels use an instant query, so that they show no old value when the workers are gone."""
    assert [
        target["expr"]
        for target in panel["targets"]
        if not _is_of_now(target) and not target["expr"].endswith(" or vector(0)")
    ] == []


@pytest.mark.parametrize("panel", REDUCED, ids=lambda panel: panel["title"])
def test_a_missing_value_is_shown_and_not_green(panel):
    """A missing value is shown as text or 0 in the colour of the first threshold, never green."""
    field_defaults = panel["fieldConfig"]["defaults"]
    if all(target["expr"].endswith(" or vector(0)") for target in panel["targets"]):
        assert "noValue" not in field_defaults
    else:
        assert field_defaults["noValue"]
        assert panel["type"] != "stat" or field_defaults["thresholds"]["steps"][0]["color"] != "green"


def test_a_restart_does_not_reset_the_last_success():
    """A restart does not reset the time of the last success that the panel shows."""
    ((panel, around),) = (
        (query.where, around)
        for query in QUERIES
        for selector, around in selectors_of(query.promql)
        if selector.name == "chart_export_last_success_timestamp_seconds"
    )
    assert (panel, around) == ("Since the last success", ("max_over_time",))


def test_every_figure_of_a_worker_is_shown(families):
    """Every metric of a worker is in a panel, except a short list."""
    shown = {selector.name for query in QUERIES for selector, _ in selectors_of(query.promql)}
    hidden = {family.name for family in families if not shown & {sample.name for sample in family.samples}}
    assert hidden == NOT_SHOWN


def test_every_alert_has_a_panel_that_names_it():
    """Every alert has a panel that names it, and no panel names an unknown alert."""
    named = {alert for panel in PANELS for alert in re.findall(r"ChartExport[A-Z]\w+", panel["description"])}
    assert named == ALERTS
    assert len(ALERTS) > 15


def test_panels_with_an_alert_lead_to_the_incidents():
    """Panels with an alert link to an existing heading of the incident documents."""
    alarmed = [panel for panel in PANELS if "ChartExport" in panel["description"]]
    assert [panel["title"] for panel in alarmed if not panel.get("links")] == []
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for link in [*DASHBOARD["links"], *(link for panel in alarmed for link in panel["links"])]:
        file, _, anchor = link["url"].removeprefix("${docs}/").partition("#")
        assert (file, anchor in anchors) == ("operations.md", True)


def test_settings_that_descriptions_name_have_the_values_they_say():
    """Settings in descriptions, such as `STEP_TIMEOUT_SECONDS (300)`, have the daemon's default."""
    message = " ".join(panel["description"] for panel in PANELS)
    described = re.findall(r"([A-Z]+_[A-Z_]+) \((\d+)\)", message)
    assert {"STEP_TIMEOUT_SECONDS", "LEASE_SECONDS"} <= {name for name, _ in described}
    assert [
        (name, value)
        for name, value in described
        if Settings.model_fields[name.lower()].default != float(value)
    ] == []
