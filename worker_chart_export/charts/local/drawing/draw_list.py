"""Turn a plan into marks, in the order in which they are drawn over one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.drawing.annotations.catalogue import drawing_marks, time_axis_marks
from worker_chart_export.charts.local.drawing.annotations.surface import Surface
from worker_chart_export.charts.local.drawing.lines import dashed_row
from worker_chart_export.charts.local.drawing.price_marks import PriceArtist
from worker_chart_export.charts.local.drawing.profile_marks import profile_marks
from worker_chart_export.charts.local.drawing.study_marks import StudyArtist
from worker_chart_export.charts.local.drawing.watermarks import watermarks
from worker_chart_export.charts.local.layout.axes import (
    AXIS_INDENT,
    TimeLabel,
    time_labels,
)
from worker_chart_export.charts.local.primitives.colors import text_on
from worker_chart_export.charts.local.primitives.marks import (
    DrawList,
    Gradient,
    Polygon,
    Rects,
    Text,
    joined,
    thickened,
)
from worker_chart_export.charts.local.primitives.text import cap_height, text_width

if TYPE_CHECKING:
    from worker_chart_export.charts.local.layout.plan import Pane, Plan
    from worker_chart_export.charts.local.primitives.marks import Mark


#: Free pixels beside the name of a value.
_NAME_INDENT = 4


def build_draw_list(plan: Plan) -> DrawList:
    """Make all marks of the chart: backgrounds and grid, the price, the studies' panes, the axes."""
    options, theme = plan.options, plan.theme
    zone = options.zone if options.timeframe.is_intraday else None
    dates = time_labels(
        plan.candles.dates,
        plan.grid,
        zone=zone,
        right=plan.panes[0].box[2],
        size=plan.sizes.axis,
        long_bars=options.timeframe.unit in "WMY",
    )
    marks = _backgrounds(plan, dates)
    has_price = options.visible.main_pane
    if has_price:
        marks += [*watermarks(options, plan.panes[0].box, theme), *_price_marks(plan)]
    for pane in plan.panes[1:] if has_price else plan.panes:
        artist = StudyArtist(grid=plan.grid, scale=pane.scale, pane=pane.box)
        for study in pane.studies:
            marks += artist.below(study)
        marks += [*artist.above(pane.studies), *pane.legend]
    labels = time_axis_marks(_surface(plan), options.drawings) if has_price else []
    marks += [*_axis_marks(plan, _not_covered(dates, labels)), *labels]
    if plan.sizes.line != 1:
        marks = [thickened(mark, plan.sizes.line) for mark in marks]
    return DrawList(width=options.width, height=options.height, background=theme.axis, marks=tuple(marks))


def _backgrounds(plan: Plan, dates: list[TimeLabel]) -> list[Mark]:
    """Draw the panes' backgrounds and their grids."""
    visible, theme = plan.options.visible, plan.theme
    marks: list[Mark] = []
    for pane in plan.panes:
        box = left, top, right, bottom = pane.box
        marks.append(Gradient(box=box, top=theme.top, bottom=theme.bottom))
        if visible.horizontal_grid:
            rows = (row for row, _ in pane.axis.ticks if top <= row < bottom)
            marks.append(Rects(boxes=tuple((left, row, right, row + 1) for row in rows), color=theme.grid))
        if visible.vertical_grid:
            columns = tuple((date.center, top, date.center + 1, bottom) for date in dates)
            marks.append(Rects(boxes=columns, color=theme.grid))
    return marks


def _price_marks(plan: Plan) -> list[Mark]:
    pane = plan.panes[0]
    box, scale = pane.box, pane.scale
    artist = StudyArtist(grid=plan.grid, scale=scale, pane=box)
    marks: list[Mark] = []
    for study, floor in plan.floors:
        marks += StudyArtist(grid=plan.grid, scale=floor, pane=box).below(study)
    for study in pane.studies:
        marks += profile_marks(study.profile, scale=scale, pane=box) if study.profile else []
        marks += artist.below(study)
    price = PriceArtist(
        plan.visible,
        close_before=float(plan.candles.close[plan.grid.first - 1]) if plan.grid.first else float("nan"),
        grid=plan.grid,
        scale=scale,
        pane=box,
        look=plan.options.look,
    )
    marks += [*price.marks(plan.options.style), *artist.above(pane.studies)]
    above = [
        mark
        for study, own_scale in plan.floors
        for mark in StudyArtist(grid=plan.grid, scale=own_scale, pane=box).above([study])
    ]
    marks += joined(above)
    if plan.options.visible.price_line:
        row = round(scale.row(float(plan.candles.close[-1])))
        marks.append(dashed_row(row, box, plan.price_color, dash=1, period=3))
    return [*marks, *drawing_marks(_surface(plan), plan.options.drawings), *pane.legend]


def _surface(plan: Plan) -> Surface:
    return Surface(
        candles=plan.candles,
        grid=plan.grid,
        scale=plan.panes[0].scale,
        pane=plan.panes[0].box,
        time_axis=(0, plan.panes[-1].box[3] + 1, plan.options.width, plan.options.height),
        writer=plan.price_writer,
    )


def _axis_marks(plan: Plan, dates: list[TimeLabel]) -> list[Mark]:
    """Draw borders, values and dates."""
    width, theme = plan.options.width, plan.theme
    _, _, right, bottom = plan.panes[-1].box
    lines = [(0, pane.box[3], width, pane.box[3] + 1) for pane in plan.panes]
    marks: list[Mark] = [Rects(boxes=((right, 0, right + 1, bottom), *lines), color=theme.separator)]
    for pane in plan.panes:
        marks += _value_marks(plan, pane)
    middle = (bottom + plan.options.height) // 2 + 1
    for date in dates:
        color = theme.strong if date.strong else theme.text
        marks.append(Text(x=date.left, y=middle, text=date.text, color=color, size=plan.sizes.axis))
    return marks


def _not_covered(dates: list[TimeLabel], labels: list[Mark]) -> list[TimeLabel]:
    """Return the dates that no label of a drawing covers, not even in part."""
    columns = [[x for x, _ in mark.points] for mark in labels if isinstance(mark, Polygon)]
    return [
        date
        for date in dates
        if all(date.right <= min(covered) or max(covered) <= date.left for covered in columns)
    ]


def _value_marks(plan: Plan, pane: Pane) -> list[Mark]:
    """Draw the values on a pane's axis that no label covers, and the labels."""
    _, top, right, bottom = pane.box
    size, height = plan.sizes.axis, plan.sizes.label_height
    pen, half = right + AXIS_INDENT, cap_height(size) // 2 + 2
    marks: list[Mark] = [
        Text(x=pen, y=row, text=text, color=plan.theme.text, size=size)
        for row, text in pane.axis.ticks
        if top + half + 1 <= row < bottom - half - 1
        and all(abs(row - label.row) > height // 2 + half for label in pane.axis.labels)
    ]
    for label in pane.axis.labels:
        upper, color = label.row - height // 2, (*label.color[:3], 255)
        boxes = [(right + 1, upper, plan.options.width, upper + height - 1)]
        texts = [(pen, label.text)]
        if label.name:
            left = right - text_width(label.name, size) - 2 * _NAME_INDENT
            boxes.append((left, upper, right, upper + height - 1))
            texts.append((left + _NAME_INDENT, label.name))
        marks.append(Rects(boxes=tuple(boxes), color=color))
        marks += [Text(x=x, y=label.row, text=text, color=text_on(color), size=size) for x, text in texts]
    return marks
