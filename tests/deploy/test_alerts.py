"""The alert rules: each fires when it must and at no other time, and its texts say what to do."""

from __future__ import annotations

import re

import promql_parser
import pytest
import yaml

from tests.support.deploy.alert_cases import FIRES, QUIET, series_of
from tests.support.deploy.promql import NAME, evaluate
from tests.support.process.daemons import ROOT
from worker_chart_export.observability import metrics

GROUPS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8"))["groups"]
RULES = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
RULE_KEYS = {"alert", "expr", "for", "labels", "annotations"}
TEXTS = {"summary", "description"}
WINDOW = re.compile(r"\[([1-9]\d*)([mh])\]")
NUMBER = re.compile(r"(?<=[<>=] )\d+(?:\.\d+)?")
OPPOSITES = {"==": "!=", ">=": "<", "<=": ">", ">": "<=", "<": ">="}
SIGN = re.compile(r"==|>=|<=|(?<!=)[<>](?!=)")
#: Labels that Prometheus adds to each of our series, and one of its own series.
OF_THE_TARGET = {"instance": None, "job": None}
OF_PROMETHEUS = {"up": OF_THE_TARGET}


def fires(expression, case):
    """Return the labels of each alert that would be raised."""
    return [dict(labels) for labels in evaluate(expression, series_of(case))]


def fires_as_expected(expression, alert):
    """Return whether the expression fires in exactly those of the alert's cases that expect it."""
    return all(fires(expression, case) for case in FIRES[alert]) and not any(
        fires(expression, case) for case in QUIET[alert]
    )


def pairs(cases):
    """Return all pairs of alert and case."""
    return [(alert, case) for alert, its_cases in cases.items() for case in its_cases]


def test_every_alert_is_unique_and_has_cases():
    """Every alert name is unique and has cases in which it fires and cases in which it does not."""
    names = [rule["alert"] for group in GROUPS for rule in group["rules"]]
    assert sorted(names) == sorted(RULES) == sorted(FIRES) == sorted(QUIET)
    groups = [group["name"] for group in GROUPS]
    assert len(set(groups)) == len(groups)


@pytest.mark.parametrize(("alert", "case"), pairs(FIRES))
def test_it_fires(alert, case):
    """In its positive cases an alert fires once, with all labels that its texts use."""
    rule = RULES[alert]
    (labels,) = fires(rule["expr"], case)
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert named <= set(labels)


@pytest.mark.parametrize(("alert", "case"), pairs(QUIET))
def test_it_does_not_fire(alert, case):
    """In its negative cases an alert does not fire."""
    assert fires(RULES[alert]["expr"], case) == []


@pytest.mark.parametrize("alert", RULES)
def test_the_cases_hold_every_number_sign_and_window_of_it(alert):
    """Changing any number, sign or window of an expression changes the result of one of its cases."""
    expression = RULES[alert]["expr"]
    changed = [*_other_numbers(expression), *_other_signs(expression), *_other_windows(expression)]
    assert [other for other in changed if fires_as_expected(other, alert)] == []


def _with(expression, match, text):
    return expression[: match.start()] + text + expression[match.end() :]


def _other_numbers(expression):
    for match in NUMBER.finditer(expression):
        number = float(match[0])
        others = (
            (number - 1, number + 1) if number < 10 and number.is_integer() else (number * 0.8, number * 1.2)
        )
        yield from (_with(expression, match, f"{other:g}") for other in others)


def _other_signs(expression):
    bare = re.sub(r"\{[^}]*\}", lambda matchers: " " * len(matchers[0]), expression)
    for match in SIGN.finditer(bare):
        yield _with(expression, match, OPPOSITES[match[0]])


def _other_windows(expression):
    for match in WINDOW.finditer(expression):
        seconds = int(match[1]) * {"m": 60, "h": 3600}[match[2]]
        yield from (_with(expression, match, f"[{other:g}s]") for other in (seconds // 2, seconds * 2))


@pytest.mark.parametrize("alert", RULES)
def test_the_expression_uses_existing_series(alert):
    """Every series, label and label value in an expression exists."""
    known = _known_series() | OF_PROMETHEUS
    for selector in _selectors(RULES[alert]["expr"]):
        labels = known[selector.name]
        for matcher in selector.matchers.matchers:
            assert set(matcher.value.split("|")) <= labels[matcher.name]


@pytest.mark.parametrize("case", [case for _, case in pairs(FIRES) + pairs(QUIET)])
def test_the_cases_use_existing_series(case):
    """Every series in a case exists."""
    known = _known_series() | OF_PROMETHEUS
    for labels in map(dict, series_of(case)):
        values = known[labels.pop(NAME)]
        assert all(values[name] is None or value in values[name] for name, value in labels.items())


def _selectors(expression):
    found = []

    def note(node):
        selector = getattr(node, "vector_selector", node)
        if isinstance(selector, promql_parser.VectorSelector):
            found.append(selector)

    promql_parser.walk(promql_parser.parse(expression), pre_visit=note)
    assert found
    return found


def _known_series():
    """Return sample name -> label -> its known values; None = values are not known beforehand."""
    metrics.know_account("acc-1", daily_limit=44)
    known = {}
    for family in metrics.REGISTRY.collect():
        for sample in family.samples:
            labels = known.setdefault(sample.name, dict(OF_THE_TARGET))
            for name, value in sample.labels.items():
                labels[name] = labels.get(name, set()) | {value}
    return known


@pytest.mark.parametrize("alert", RULES)
def test_it_is_a_whole_rule(alert):
    """Each rule has all fields that Prometheus and the person on call need."""
    rule = RULES[alert]
    assert rule.keys() <= RULE_KEYS
    assert re.fullmatch(r"[1-9]\d*[smh]", rule.get("for", "1m"))
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == TEXTS
    assert all(len(text) >= 20 for text in rule["annotations"].values())
