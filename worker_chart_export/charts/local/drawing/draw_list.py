"""A plan as marks, in the order in which they cover one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.drawing.price_marks import PriceArtist, dotted_row
from worker_chart_export.charts.local.drawing.profile_marks import profile_marks
from worker_chart_export.charts.local.drawing.study_marks import StudyArtist
from worker_chart_export.charts.local.layout.time_axis import FONT_SIZE, TimeLabel, time_labels
from worker_chart_export.charts.local.primitives.marks import DrawList, Gradient, Rects, Text

if TYPE_CHECKING:
    from worker_chart_export.charts.local.layout.plan import Plan, PlannedPane
    from worker_chart_export.charts.local.primitives.marks import Mark


def build_draw_list(plan: Plan) -> DrawList:
    """All marks of the chart."""
    zone = plan.options.zone if plan.options.timeframe.is_intraday else None
    dates = time_labels(plan.candles.dates, plan.grid, zone=zone, right=plan.frame.right)
    marks = [*_background_marks(plan, dates)]
    marks += _price_marks(plan)
    for planned in plan.panes[1:]:
        marks += _study_marks(plan, planned)
    marks += _axes(plan, dates)
    size = plan.options
    return DrawList(width=size.width, height=size.height, background=plan.theme.axis, marks=tuple(marks))


def _background_marks(plan: Plan, dates: list[TimeLabel]) -> list[Mark]:
    """Backgrounds and grid."""
    visible = plan.options.overrides.visible
    marks: list[Mark] = []
    for planned in plan.panes:
        box = planned.pane.box
        marks.append(Gradient(box=box, top=plan.theme.top, bottom=plan.theme.bottom))
        if visible.horizontal_grid:
            marks.append(planned.axis.grid(box, plan.theme))
        if visible.vertical_grid:
            columns = tuple((date.center, box[1], date.center + 1, box[3]) for date in dates)
            marks.append(Rects(boxes=columns, color=plan.theme.grid))
    return marks


def _price_marks(plan: Plan) -> list[Mark]:
    planned = plan.panes[0]
    box, scale = planned.pane.box, planned.pane.scale
    studies = planned.pane.studies
    artist = StudyArtist(grid=plan.grid, scale=scale, pane=box)
    marks: list[Mark] = []
    for study, floor in plan.floors:
        marks += StudyArtist(grid=plan.grid, scale=floor, pane=box).below(study)
    for study in studies:
        marks += profile_marks(study.profile, scale=scale, pane=box) if study.profile else []
        marks += artist.below(study)
    price = PriceArtist(plan.visible, grid=plan.grid, scale=scale, pane=box, theme=plan.theme)
    marks += price.marks(plan.options.style)
    marks += artist.above(list(studies))
    if plan.options.overrides.visible.price_line:
        rising = plan.candles.close[-1] >= plan.candles.open[-1]
        row = round(scale.row(float(plan.candles.close[-1])))
        marks.append(dotted_row(row, box, plan.theme.rising if rising else plan.theme.falling))
    return [*marks, *planned.legend]


def _study_marks(plan: Plan, planned: PlannedPane) -> list[Mark]:
    artist = StudyArtist(grid=plan.grid, scale=planned.pane.scale, pane=planned.pane.box)
    marks: list[Mark] = []
    for study in planned.pane.studies:
        marks += artist.below(study)
    return [*marks, *artist.above(list(planned.pane.studies)), *planned.legend]


def _axes(plan: Plan, dates: list[TimeLabel]) -> list[Mark]:
    """Borders, values and dates."""
    width, foot, right = plan.options.width, plan.frame.foot, plan.frame.right
    lines = [(0, planned.pane.box[3], width, planned.pane.box[3] + 1) for planned in plan.panes]
    borders = ((right, 0, right + 1, foot), *lines)
    marks: list[Mark] = [Rects(boxes=borders, color=plan.theme.separator)]
    for planned in plan.panes:
        marks += planned.axis.marks(planned.pane.box, width, plan.theme)
    middle = (foot + plan.options.height) // 2 + 1
    for date in dates:
        color = plan.theme.strong if date.strong else plan.theme.text
        marks.append(Text(x=date.left, y=middle, text=date.text, color=color, size=FONT_SIZE))
    return marks
