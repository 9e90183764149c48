"""The alert rules: each can be loaded, can fire, and says what to do."""

from __future__ import annotations

import copy
import re

import pytest
import yaml

from tests.daemons import ROOT
from worker_chart_export import metrics

FILE = ROOT / "deploy/prometheus/alerts.yaml"
RULE_KEYS = {"alert", "expr", "for", "labels", "annotations"}
DURATION = re.compile(r"[1-9][0-9]*[smhd]")
STRING = re.compile(r'"[^"]*"')
SELECTOR = re.compile(r"(?P<name>[a-z]+_[a-z_]+)(?:\{(?P<matchers>[^}]*)\})?(?P<range>\[[^]]*\])?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
WORDS = {"sum", "max", "by", "rate", "increase", "absent", "and"}
AGGREGATION = re.compile(r"\b(?:sum|max)\b\s*(?:by\s*\(([^)]*)\))?")
#: What Prometheus itself adds to each series.
OF_THE_TARGET = {"instance", "job"}


def known_series():
    """Sample name -> type, and label -> its known values (None = they come with the accounts)."""
    known = {}
    for family in metrics.REGISTRY.collect():
        collector = metrics.REGISTRY._names_to_collectors.get(family.name)
        labels = dict.fromkeys(getattr(collector, "_labelnames", ()))
        for sample in family.samples:
            for name, value in sample.labels.items():
                labels[name] = (labels.get(name) or set()) | {value}
            known[sample.name] = family.type, labels
        if not family.samples:
            known[family.name + ("_total" if family.type == "counter" else "")] = family.type, labels
    for _, labels in known.values():
        labels.update({"account": None} if "account" in labels else {})
        labels.update({"answer": set(metrics.ANSWERS)} if "answer" in labels else {})
    return known


def problems(document):
    """What is wrong with a file of rules; nothing when all is well."""
    groups = document["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    found = twice([group["name"] for group in groups]) + twice([rule["alert"] for rule in rules])
    return found + [f"{rule['alert']}: {what}" for rule in rules for what in problems_of(rule)]


def twice(names):
    """The names that stand more than once."""
    return [f"{name} stands twice" for name in sorted({name for name in names if names.count(name) > 1})]


def problems_of(rule):
    """What is wrong with one rule."""
    found = [f"unknown key {key}" for key in rule.keys() - RULE_KEYS]
    if "for" in rule and not DURATION.fullmatch(rule["for"]):
        found.append(f"for: {rule['for']}")
    if rule.get("labels", {}).get("severity") not in {"page", "ticket"}:
        found.append("severity")
    texts = rule.get("annotations", {})
    found += [f"no {name}" for name in ("summary", "description") if len(texts.get(name, "")) < 20]
    found += problems_of_expression(rule["expr"])
    left = labels_left(rule["expr"])
    for text in texts.values():
        found += [
            f"no label {name} is left" for name in re.findall(r"\$labels\.(\w+)", text) if name not in left
        ]
    return found


def problems_of_expression(expression):
    """What is wrong with an expression, as far as it can be told without Prometheus."""
    found, known = [], known_series()
    bare = STRING.sub('""', expression)
    found += [
        f"{pair} don't match" for pair in ("()", "{}", "[]") if bare.count(pair[0]) != bare.count(pair[1])
    ]
    series = list(SELECTOR.finditer(expression))
    for selector in series:
        if selector["name"] not in known:
            found.append(f"unknown series {selector['name']}")
            continue
        kind, labels = known[selector["name"]]
        if (kind == "counter") != bool(selector["range"]):
            found.append(f"{selector['name']} is a {kind}")
        if selector["range"] and not DURATION.fullmatch(selector["range"][1:-1]):
            found.append(f"range {selector['range']}")
        found += problems_of_matchers(selector["matchers"] or "", labels)
    grouped = {name.strip() for names in AGGREGATION.findall(bare) if names for name in names.split(",")}
    found += [f"no label {name}" for name in grouped - all_labels(series, known)]
    rest = re.sub(r"\bby\s*\([^)]*\)", "", SELECTOR.sub("", expression))
    return found + [f"unknown word {word}" for word in re.findall(r"[A-Za-z_]\w*", rest) if word not in WORDS]


def problems_of_matchers(matchers, labels):
    """Labels that the series has not, and values that they never have."""
    found = [] if re.fullmatch(rf"(\s*{MATCHER.pattern}\s*,?)*", matchers) else [f"matchers {matchers}"]
    for name, operator, value in MATCHER.findall(matchers):
        if name not in labels:
            found.append(f"no label {name}")
            continue
        wanted = value.split("|") if "~" in operator else [value]
        if labels[name] is not None:
            found += [f"{name} is never {one}" for one in wanted if one not in labels[name]]
    return found


def all_labels(series, known):
    """The labels of all series of an expression."""
    return OF_THE_TARGET.union(*(known[one["name"]][1] for one in series if one["name"] in known))


def labels_left(expression):
    """The labels that the result of an expression has."""
    aggregations = AGGREGATION.findall(expression)
    if aggregations:
        return {name.strip() for name in aggregations[0].split(",")}
    return set() if "absent" in expression else all_labels(SELECTOR.finditer(expression), known_series())


@pytest.fixture
def rules():
    """The file, read."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_the_rules_are_sound(rules):
    """Every metric, label and value that they name is there, and every text is."""
    assert problems(rules) == []
    assert len([rule for group in rules["groups"] for rule in group["rules"]]) >= 10


OPEN = "chart_export_stream_open == 0"
REJECTED = "chart_export_messages_rejected_total"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"expr": "chart_export_stream_opne == 0"}, "unknown series chart_export_stream_opne"),
        ({"expr": "streamopen == 0"}, "unknown word streamopen"),
        ({"expr": f"summ({OPEN})"}, "unknown word summ"),
        ({"expr": f"({OPEN}"}, "() don't match"),
        ({"expr": f'{REJECTED}{{reason="not_ready"}} > 0'}, f"{REJECTED} is a counter"),
        ({"expr": "increase(chart_export_stream_open[5m]) > 0"}, "chart_export_stream_open is a gauge"),
        ({"expr": f"increase({REJECTED}[5]) > 0"}, "range [5]"),
        ({"expr": f'increase({REJECTED}{{cause="x"}}[5m]) > 0'}, "no label cause"),
        ({"expr": f'increase({REJECTED}{{reason="nto_ready"}}[5m]) > 0'}, "reason is never nto_ready"),
        ({"expr": f'increase({REJECTED}{{reason=~"not_ready|x"}}[5m]) > 0'}, "reason is never x"),
        ({"expr": f"increase({REJECTED}{{reason=not_ready}}[5m]) > 0"}, "matchers reason=not_ready"),
        ({"expr": f"sum by (code) (increase({REJECTED}[5m])) > 0"}, "no label code"),
        ({"annotations": {"summary": "It is closed, that is all"}}, "no description"),
        ({"annotations": {"description": "Open it again, please"}}, "no summary"),
        (
            {
                "annotations": {
                    "summary": "Closed: {{ $labels.backend }}",
                    "description": "Open it again, please",
                }
            },
            "no label backend is left",
        ),
        ({"expr": f"sum({OPEN})"}, "no label instance is left"),
        ({"labels": {"severity": "loud"}}, "severity"),
        ({"labels": {}}, "severity"),
        ({"for": "5 minutes"}, "for: 5 minutes"),
        ({"if": OPEN}, "unknown key if"),
    ],
)
def test_a_broken_rule_would_be_seen(rules, change, problem):
    """By what is wrong with it, and nothing else is."""
    broken = copy.deepcopy(rules)
    names = [rule["alert"] for rule in broken["groups"][0]["rules"]]
    rule = broken["groups"][0]["rules"][names.index("ChartExportStreamClosed")]
    if "expr" in change and "instance" not in problem:
        rule["annotations"]["summary"] = "Something happened there"
    rule.update(change)
    assert problems(broken) == [f"ChartExportStreamClosed: {problem}"]


def test_names_that_stand_twice_would_be_seen(rules):
    """Of groups and of alerts."""
    rules["groups"] += copy.deepcopy(rules["groups"][:1])
    rules["groups"][-1]["rules"] = rules["groups"][-1]["rules"][:1]
    assert problems(rules) == ["chart-export-intake stands twice", "ChartExportAbsent stands twice"]
