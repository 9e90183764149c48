"""PromQL on series of one sample a minute, as far as the alert rules need it.

A library parses the syntax. Nothing is extrapolated, because each window begins and ends with a sample.
Functions that the rules do not use are refused.
"""

from __future__ import annotations

import math
import operator
import re
from functools import singledispatch
from itertools import pairwise

from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    NumberLiteral,
    ParenExpr,
    VectorSelector,
    parse,
)

NAME = "__name__"
COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
ARITHMETIC = {"*": operator.mul, "/": lambda one, other: one / other if other else math.nan}
AGGREGATIONS = {"sum": sum, "max": max}
MATCHES = {
    "Equal": lambda value, wanted: value == wanted,
    "NotEqual": lambda value, unwanted: value != unwanted,
    "Re": lambda value, pattern: re.fullmatch(pattern, value) is not None,
    "NotRe": lambda value, pattern: re.fullmatch(pattern, value) is None,
}


def evaluate(expression, series):
    """Evaluate an expression at the last sample: labels -> value.

    Args:
        expression: The PromQL.
        series: Labels with the name -> one sample a minute, the last one now; None = no sample. Labels are
            sets of pairs.
    """
    return _result(parse(expression), series)


def labels_of(selector, **others):
    """Return `name{label="value"}` as a set of pairs, with others added."""
    parsed = parse(selector)
    own = {matcher.name: matcher.value for matcher in parsed.matchers.matchers}
    return frozenset((others | own | {NAME: parsed.name}).items())


@singledispatch
def _result(node, _series):
    raise NotImplementedError(type(node).__name__)


@_result.register(NumberLiteral)
def _(node, _series):
    return node.val


@_result.register(ParenExpr)
def _(node, series):
    return _result(node.expr, series)


@_result.register(VectorSelector)
def _(node, series):
    found = _selected(node, series)
    return {labels: samples[-1] for labels, samples in found.items() if samples[-1] is not None}


def _kind(member):
    """Return the last word of an enum member, which is not hashable itself."""
    return str(member).rpartition(".")[2]


def _selected(selector, series):
    def fits(labels):
        own = dict(labels)
        return own[NAME] == selector.name and all(
            MATCHES[_kind(matcher.op)](own.get(matcher.name, ""), matcher.value)
            for matcher in selector.matchers.matchers
        )

    return {labels: samples for labels, samples in series.items() if fits(labels)}


@_result.register(Call)
def _(node, series):
    (given,) = node.args
    if node.func.name == "absent":
        return {} if _result(given, series) else {frozenset(): 1.0}
    seconds = given.range.total_seconds()
    return {
        _without_name(labels): OVER_TIME[node.func.name](window, seconds)
        for labels, samples in _selected(given.vector_selector, series).items()
        if (window := [sample for sample in samples[-int(seconds // 60) - 1 :] if sample is not None])
    }


def _increase(window, _seconds):
    """Return the increase of a counter; a fall is a restart at 0."""
    return sum(later - earlier if later >= earlier else later for earlier, later in pairwise(window))


OVER_TIME = {
    "increase": _increase,
    "rate": lambda window, seconds: _increase(window, seconds) / seconds,
    "changes": lambda window, _: sum(later != earlier for earlier, later in pairwise(window)),
    "avg_over_time": lambda window, _: sum(window) / len(window),
    "max_over_time": lambda window, _: max(window),
}


@_result.register(AggregateExpr)
def _(node, series):
    if node.modifier and _kind(node.modifier.type) != "By":
        raise NotImplementedError(str(node))
    kept = node.modifier.labels if node.modifier else []
    groups = {}
    for labels, value in _result(node.expr, series).items():
        groups.setdefault(_only(labels, kept), []).append(value)
    return {labels: AGGREGATIONS[str(node.op)](values) for labels, values in groups.items()}


@_result.register(BinaryExpr)
def _(node, series):
    sign, left, right = str(node.op), _result(node.lhs, series), _result(node.rhs, series)
    key = _key(node.modifier)
    if sign in {"and", "or"}:
        return _combined(sign, left, right, key)
    if isinstance(left, float):
        left = dict.fromkeys(right, left)
    if isinstance(right, float):
        right = dict.fromkeys(left, right)
    theirs = {key(labels): value for labels, value in right.items()}
    pairs = [(labels, one, theirs[key(labels)]) for labels, one in left.items() if key(labels) in theirs]
    if sign in COMPARISONS:
        return {labels: one for labels, one, other in pairs if COMPARISONS[sign](one, other)}
    return {_without_name(labels): ARITHMETIC[sign](one, other) for labels, one, other in pairs}


def _combined(sign, left, right, key):
    ours, theirs = ({key(labels) for labels in side} for side in (left, right))
    if sign == "and":
        return {labels: value for labels, value in left.items() if key(labels) in theirs}
    return left | {labels: value for labels, value in right.items() if key(labels) not in ours}


def _key(modifier):
    """Return the match key of both sides: the labels after `on`, else all except the name."""
    if modifier is None or modifier.matching is None:
        return _without_name
    if _kind(modifier.matching.type) != "Include":
        raise NotImplementedError(str(modifier.matching))
    return lambda labels: _only(labels, modifier.matching.labels)


def _only(labels, kept):
    return frozenset(pair for pair in labels if pair[0] in kept)


def _without_name(labels):
    return frozenset(pair for pair in labels if pair[0] != NAME)
