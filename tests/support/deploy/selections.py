"""Read the selectors of PromQL and the labels of its results."""

from __future__ import annotations

from functools import singledispatch

from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    VectorSelector,
    parse,
)

#: Functions whose result has no labels.
WITHOUT_LABELS = ("time", "vector")


def selectors_of(promql):
    """Return each selector with the functions around it, the innermost last."""
    return list(_selectors(parse(promql), ()))


def _selectors(node, around):
    if isinstance(node, VectorSelector):
        yield node, around
    elif isinstance(node, MatrixSelector):
        yield node.vector_selector, around
    elif isinstance(node, Call):
        for argument in node.args:
            yield from _selectors(argument, (*around, node.func.name))
    elif isinstance(node, BinaryExpr):
        yield from _selectors(node.lhs, around)
        yield from _selectors(node.rhs, around)
    elif isinstance(node, (AggregateExpr, ParenExpr)):
        yield from _selectors(node.expr, around)


def labels_left(promql, labels):
    """Return the labels of a query's results.

    Args:
        promql: The query.
        labels: Name of a series -> its labels.
    """
    return _labels(parse(promql), labels)


@singledispatch
def _labels(node, _labels_of):
    raise NotImplementedError(type(node).__name__)


@_labels.register(VectorSelector)
def _(node, labels_of):
    return labels_of[node.name]


@_labels.register(MatrixSelector)
def _(node, labels_of):
    return labels_of[node.vector_selector.name]


@_labels.register(NumberLiteral)
def _(_node, _labels_of):
    return set()


@_labels.register(ParenExpr)
def _(node, labels_of):
    return _labels(node.expr, labels_of)


@_labels.register(Call)
def _(node, labels_of):
    if node.func.name in WITHOUT_LABELS:
        return set()
    found = _labels(node.args[-1], labels_of)
    return found - {"le"} if node.func.name == "histogram_quantile" else found


@_labels.register(AggregateExpr)
def _(node, labels_of):
    inner = _labels(node.expr, labels_of)
    kept = set(node.modifier.labels) if node.modifier else set()
    if not kept <= inner:
        raise AssertionError(f"{kept - inner} of {node} is no label there")
    return kept


@_labels.register(BinaryExpr)
def _(node, labels_of):
    return _labels(node.lhs, labels_of) | _labels(node.rhs, labels_of)
