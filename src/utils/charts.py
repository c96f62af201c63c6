"""Charts by matplotlib: lines with bands, grouped bars, rows, scatter with labels; SVG, PDF and PNG with repeatable bytes.

Series differ by colour (Okabe and Ito's palette, told apart with every colour vision) and also by dash pattern, marker or
hatch, so that a chart reads in black and white. A chart is a function of what it is given and of nothing else.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Chart
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

# Without yellow, which is lost on white. Source: Okabe and Ito, "Color Universal Design", 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "x", "+", "v", "o")
HOLLOW = 7  # the number of the marker that is filled with white
HATCHES = ("", "///", "\\\\\\", "xxx", "---", "|||", "...")
SOLID = "solid"
DASHES: tuple[Any, ...] = (SOLID, *((0, dash) for dash in ((7, 3), (2, 3), (9, 3, 2, 3), (12, 4), (4, 2, 1, 2, 1, 2))))
WIDTH, HEIGHT = 5.8, 3.4  # inches, of axes with their labels
LEGEND_ROW = 0.25  # inches
ROW = 0.22  # inches from one row to the next
INK, FAINT = "#222222", "#dddddd"
FEW = 12  # points up to which each has an error bar in place of a band
FORMS: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],  # the first one comes with matplotlib: equal sizes everywhere
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "gtc-bench",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: what it shows, with the unit.
        log: a logarithmic scale.
        categories: names in place of numbers; positions are then 0, 1, ...
        zero: whether it starts at 0.
    """

    label: str
    log: bool = False
    categories: tuple[str, ...] = ()
    zero: bool = False


@dataclass(frozen=True)
class Series:
    """Points of a line, or heights of the bars of one kind.

    Attributes:
        x: positions; for bars left out.
        spread: half the width of the band or of the error bar at each point; empty: none.
        joined: whether the points are joined by a line.
        number: which colour, dash, marker and hatch; None: its place among the series.
    """

    label: str
    y: Sequence[float | None]
    x: Sequence[float] = ()
    spread: Sequence[float] = ()
    joined: bool = True
    number: int | None = None


def rendered(chart: Chart, form: str) -> bytes:
    """The chart as svg, pdf or png; equal charts give equal bytes."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        if chart.get_layout_engine() is not None:  # where everything stands is settled once for all forms
            chart.draw_without_rendering()
            chart.set_layout_engine("none")
        chart.savefig(content, format=form, metadata=FORMS[form], dpi=200)
    return content.getvalue()


def line_chart(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Chart:
    """Lines with bands, or error bars where points are few or not joined."""
    with _axes(title, x, y) as (chart, axes):
        for place, one in enumerate(series):
            number = place if one.number is None else one.number
            values = [
                (a, b, one.spread[k] if one.spread else 0.0) for k, (a, b) in enumerate(zip(one.x, one.y, strict=True))
            ]
            points = [(a, b, s) for a, b, s in values if b is not None]
            xs, ys, spread = ([point[k] for point in points] for k in range(3))
            look = _line_look(number) if one.joined else _marker_look(number) | {"linestyle": "none"}
            few = len(points) <= FEW
            if one.spread and one.joined and not few:
                low, high = ([v + sign * s for v, s in zip(ys, spread, strict=True)] for sign in (-1, 1))
                axes.fill_between(xs, low, high, color=look["color"], alpha=0.15, linewidth=0)
            elif one.spread:
                _error_bars(axes, xs, ys, spread)
            step = 1 if few or not one.joined else max(1, len(points) // 7)
            # Markers of the series stand at different places.
            axes.plot(xs, ys, label=one.label, markevery=(place % step, step), **look)
        _legend(chart, axes, len(series))
    return chart


def bar_chart(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Chart:
    """Grouped bars with error bars: a group for each category of x, in it a bar for each series; None: no bar."""
    with _axes(title, x, y) as (chart, axes):
        width = 0.82 / max(len(series), 1)
        for place, one in enumerate(series):
            number = place if one.number is None else one.number
            shown = [(group, value) for group, value in enumerate(one.y) if value is not None]
            at = [group - 0.41 + (place + 0.5) * width for group, _ in shown]
            heights = [value for _, value in shown]
            axes.bar(at, heights, 0.94 * width, label=one.label, **_bar_look(number))
            if one.spread:
                _error_bars(axes, at, heights, [one.spread[group] for group, _ in shown])
        _legend(chart, axes, len(series))
    return chart


def row_chart(title: str, across: str, rows: Sequence[tuple[str, float, float]], marked: str | None = None) -> Chart:
    """Rows (label, value, spread), each a level bar with an error bar, named beside it and its value written behind.

    For more entries than colours and hatches tell apart; bars begin at 0, that of the label `marked` has another colour.
    """
    height, rows = 1.1 + ROW * len(rows), rows[::-1]  # the first one stands above
    with _axes(title, Axis(across), Axis("", categories=tuple(label for label, _, _ in rows)), height) as (chart, axes):
        values, spread = [value for _, value, _ in rows], [s for _, _, s in rows]
        colours = [COLOURS[1 if label == marked else 0] for label, _, _ in rows]
        axes.barh(range(len(rows)), values, 0.6, color=colours, edgecolor=INK, linewidth=0.6)
        _error_bars(axes, values, list(range(len(rows))), spread, across=True)
        for k, (value, s) in enumerate(zip(values, spread, strict=True)):
            axes.annotate(f"{value:.4f}", (max(value + s, 0.0), k), (5, 0), textcoords="offset points", va="center")
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
    return chart


def scatter(title: str, x: Axis, y: Axis, points: Sequence[tuple[int, str, float, float]]) -> Chart:
    """Points (number, label, x, y), each with the marker and colour of its number and its label beside it."""
    with _axes(title, x, y) as (chart, axes):
        axes.margins(0.14)
        for number, _, a, b in points:
            axes.plot([a], [b], **_marker_look(number), linestyle="none")
        _label_points(chart, axes, [(label, a, b) for _, label, a, b in points])
    return chart


@contextmanager
def _axes(title: str, x: Axis, y: Axis, height: float = HEIGHT) -> Iterator[tuple[Chart, Axes]]:
    """A chart with empty axes to draw in; ticks and limits that depend on what was drawn are set at the end."""
    with matplotlib.rc_context(STYLE):
        chart = Chart(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(chart)
        axes = chart.add_subplot()
        axes.set_title(textwrap.fill(title, 70))
        axes.set(
            xlabel=x.label, ylabel=y.label, xscale="log" if x.log else "linear", yscale="log" if y.log else "linear"
        )
        axes.grid(axis="y")
        for axis, one, limits in ((axes.xaxis, x, axes.set_xlim), (axes.yaxis, y, axes.set_ylim)):
            if one.categories:
                axis.set_major_locator(FixedLocator(range(len(one.categories))))
                axis.set_ticklabels(one.categories)
                limits(-0.5, len(one.categories) - 0.5)
        if len(x.categories) * max(map(len, x.categories), default=0) > 70:  # too wide to stand side by side
            for label in axes.get_xticklabels():
                label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")
        yield chart, axes
        for axis, one, limits in ((axes.xaxis, x, axes.set_xlim), (axes.yaxis, y, axes.set_ylim)):
            low, high = axis.get_data_interval()
            if one.log:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
                axis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axis.set_minor_formatter(NullFormatter())
            elif one.zero and low >= 0:
                limits(0.0, None)


def _error_bars(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], spread: Sequence[float], across: bool = False
) -> None:
    shown = [k for k, s in enumerate(spread) if s > 0]
    if shown:
        x, y, s = ([values[k] for k in shown] for values in (xs, ys, spread))
        up, aside = (None, s) if across else (s, None)
        axes.errorbar(x, y, up, aside, fmt="none", ecolor=INK, elinewidth=1, capsize=3, zorder=3)


def _marker_look(number: int) -> dict[str, Any]:
    colour, kind = COLOURS[number % len(COLOURS)], number % len(MARKERS)
    face = "#ffffff" if kind == HOLLOW else colour
    return {"color": colour, "marker": MARKERS[kind], "markerfacecolor": face, "markeredgecolor": colour, "zorder": 4}


def _line_look(number: int) -> dict[str, Any]:
    return _marker_look(number) | {"linestyle": DASHES[number % len(DASHES)], "zorder": 2}


def _bar_look(number: int) -> dict[str, Any]:
    colour = COLOURS[number % len(COLOURS)]
    light = INK if colour != "#000000" else "#ffffff"
    hatch = HATCHES[(number + number // len(COLOURS)) % len(HATCHES)]
    return {"color": colour, "hatch": hatch, "edgecolor": light, "linewidth": 0.6}


def _legend(chart: Chart, axes: Axes, n: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if n:
        widest = max(map(len, labels))
        columns = max(1, min(n, 84 // (widest + 8)))
        chart.set_figheight(chart.get_figheight() + LEGEND_ROW * (-(-n // columns) - 1))  # the axes keep their height
        chart.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=3)


def _label_points(chart: Chart, axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Writes a label beside each point where it covers neither a point nor a label, the nearest place first."""
    chart.draw_without_rendering()
    renderer = FigureCanvasAgg(chart).get_renderer()
    scale = chart.dpi / 72
    at = [axes.transData.transform((a, b)) for _, a, b in points]
    taken = [Bbox.from_bounds(px - 4 * scale, py - 4 * scale, 8 * scale, 8 * scale) for px, py in at]
    frame = axes.get_window_extent()
    for (label, a, b), (px, py) in zip(points, at, strict=True):
        text = axes.annotate(label, (a, b), (0, 0), textcoords="offset points", va="center", annotation_clip=False)
        size = text.get_window_extent(renderer)
        for shift, aside in _offsets():
            dx = {1: 7 * scale, -1: -7 * scale - size.width, 0: -size.width / 2}[aside]
            box = Bbox.from_bounds(px + dx, py + shift * scale - size.height / 2, size.width, size.height)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        else:
            dx, shift = 7 * scale, 0.0
            box = Bbox.from_bounds(px + dx, py - size.height / 2, size.width, size.height)
        taken.append(box)
        text.set_position((dx / scale, shift))
        if abs(shift) > 14:  # far from its point: led to it
            text.arrow_patch = None
            axes.annotate("", (a, b), (dx / scale, shift), textcoords="offset points",
                          arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.7})  # fmt: skip


def _offsets() -> Iterator[tuple[float, int]]:
    """Shifts upwards in points, and sides: right, left, above."""
    for far in range(12):
        for down in (1, -1) if far else (1,):
            for aside in (1, -1, 0):
                if far or aside:
                    yield 11.0 * far * down, aside
