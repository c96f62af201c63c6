"""A small plotting layer: line charts with bands, grouped bars, scatter with labels, as SVG text.

Series differ by colour (Okabe and Ito's palette, told apart with every colour vision) and also by dash pattern, marker or
hatch, so that a chart reads in black and white. A chart is a function of what it is given and of nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from study.canvas import (
    COLOURS,
    FAINT,
    FONT,
    INK,
    MARKERS,
    WIDTH,
    Axis,
    Drawing,
    Scale,
    framed,
    marker_at,
    path_of,
    text_width,
    wrapped,
    written,
)

DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2 1 2")


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


def line_chart(name: str, title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Lines with bands, or error bars where points are few or not joined. `name` makes ids unique in a page."""
    xs = [value for one in series for value in one.x]
    drawing = Drawing(name, title, x, y, xs, _reach(series))
    for place, one in enumerate(series):
        colour, dash, marker = _look(one, place)
        points = [
            (drawing.x(a), b, one.spread[k] if one.spread else 0.0)
            for k, (a, b) in enumerate(zip(one.x, one.y, strict=True))
            if b is not None
        ]
        at = [(px, drawing.y(value)) for px, value, _ in points]
        few = len(points) <= 12
        if one.spread and one.joined and not few:
            upper = [(px, drawing.y(value + s)) for px, value, s in points]
            lower = [(px, drawing.y_clipped(value - s)) for px, value, s in reversed(points)]
            drawing.add(f'<polygon points="{path_of(upper + lower)}" fill="{colour}" fill-opacity="0.15"/>')
        if one.joined and len(at) > 1:
            style = f' stroke-dasharray="{dash}"' if dash else ""
            drawing.add(f'<polyline points="{path_of(at)}" fill="none" stroke="{colour}" stroke-width="1.8"{style}/>')
        step = 1 if few or not one.joined else max(1, len(at) // 7)
        for k, (px, value, s) in enumerate(points):
            if (k - place) % step == 0:  # markers of the series stand at different places
                if one.spread and few and s > 0:
                    drawing.error_bar(px, value, s)
                said = f"{one.label}: {value:.4g}"
                drawing.add(marker_at(marker, px, drawing.y(value), colour, said))
    drawing.legend([(one.label, _line_key(*_look(one, place), one.joined)) for place, one in enumerate(series)])
    return drawing.text()


def bar_chart(name: str, title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Grouped bars with error bars: a group for each category of x, in it a bar for each series; None: no bar."""
    drawing = Drawing(name, title, x, y, [-0.5, len(x.categories) - 0.5], _reach(series))
    width = 0.82 / max(len(series), 1)
    for place, one in enumerate(series):
        fill = drawing.hatch(one.number if one.number is not None else place)
        for group, value in enumerate(one.y):
            if value is None:
                continue
            left = drawing.x(group - 0.41 + place * width)
            right = drawing.x(group - 0.41 + (place + 1) * width) - (1 if len(series) < 30 else 0)
            top, bottom = sorted((drawing.y(value), drawing.y(0.0)))
            drawing.add(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="{fill}" '
                f'stroke="{INK}" stroke-width="0.6"><title>{escape(f"{one.label}: {value:.4g}")}</title></rect>'
            )
            if one.spread and one.spread[group] > 0:
                drawing.error_bar((left + right) / 2, value, one.spread[group])
    keys = [
        f'<rect x="2" y="-9" width="22" height="11" fill="{drawing.hatch(one.number if one.number is not None else place)}" '
        f'stroke="{INK}" stroke-width="0.6"/>'
        for place, one in enumerate(series)
    ]
    drawing.legend([(one.label, key) for one, key in zip(series, keys, strict=True)])
    return drawing.text()


ROW = 20  # pixels from one row to the next


def row_chart(title: str, across: str, rows: Sequence[tuple[str, float, float]], marked: str | None = None) -> str:
    """Rows (label, value, spread), each a level bar with an error bar, named beside it and its value written behind.

    For more entries than colours and hatches tell apart; bars begin at 0, that of the label `marked` has another colour.
    """
    lines = wrapped(title, WIDTH - 20, FONT + 2)
    parts = [written(WIDTH / 2, 24 + 18 * k, line, "middle", FONT + 2, bold=True) for k, line in enumerate(lines)]
    top = 16.0 + 18 * len(lines)
    bottom = top + ROW * len(rows) + 6
    left = 24 + max(text_width(label) for label, _, _ in rows)
    high = max(max(value + spread for _, value, spread in rows), 0.0) or 1.0
    low = min(0.0, *(value - spread for _, value, spread in rows))
    x = Scale(low, high, False, left, WIDTH - 66.0)
    for value, word in x.ticks():
        parts.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top}" y2="{bottom}" stroke="{FAINT}"/>')
        parts.append(written(x(value), bottom + 17, word, "middle"))
    for k, (label, value, spread) in enumerate(rows):
        middle = top + ROW * (k + 0.5) + 3
        parts.append(written(left - 8, middle + 4, label, "end"))
        begin, end = sorted((x(0.0), x(value)))
        fill, said = COLOURS[1 if label == marked else 0], escape(f"{label}: {value:.4g}")
        parts.append(
            f'<rect x="{begin:.1f}" y="{middle - 6:.1f}" width="{end - begin:.1f}" height="12" fill="{fill}" '
            f'stroke="{INK}" stroke-width="0.6"><title>{said}</title></rect>'
        )
        if spread > 0:
            at, to = x(value - spread), x(value + spread)
            path = f"M{at:.1f},{middle - 3:.1f}v6M{at:.1f},{middle:.1f}H{to:.1f}m0,-3v6"
            parts.append(f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1"/>')
        parts.append(written(x(max(value + spread, 0.0)) + 6, middle + 4, f"{value:.4f}"))
    parts.append(f'<path d="M{x(0.0):.1f},{top}V{bottom}H{x.end}" fill="none" stroke="{INK}"/>')
    parts.append(written((left + x.end) / 2, bottom + 37, across, "middle"))
    return framed(title, f"{title}. Across: {across}. A row for each entry.", bottom + 50, "", parts)


def scatter(name: str, title: str, x: Axis, y: Axis, points: Sequence[tuple[int, str, float, float]]) -> str:
    """Points (number, label, x, y), each with the marker and colour of its number and its label beside it."""
    drawing = Drawing(name, title, x, y, [p[2] for p in points], [p[3] for p in points], room=0.14)
    at = [(drawing.x(a), drawing.y(b)) for _, _, a, b in points]
    boxes = [(px - 6, py - 6, px + 6, py + 6) for px, py in at]
    for (number, label, a, b), (px, py) in zip(points, at, strict=True):
        left, top = drawing.place_label(text_width(label), px, py, boxes)
        boxes.append((left, top, left + text_width(label), top + FONT))
        if abs(top + FONT / 2 - py) > 16:  # far from its point: led to it
            drawing.add(f'<line x1="{px:.1f}" y1="{py:.1f}" x2="{left:.1f}" y2="{top + FONT / 2:.1f}" stroke="#999"/>')
        said = f"{label}: {a:.4g}, {b:.4g}"
        drawing.add(marker_at(MARKERS[number % len(MARKERS)], px, py, COLOURS[number % len(COLOURS)], said))
        if left + text_width(label) <= px:  # to its left: its end is kept by the point, its width being an estimate
            drawing.write(left + text_width(label), top + FONT - 2, label, "end")
        else:
            drawing.write(left, top + FONT - 2, label)
    return drawing.text()


def _reach(series: Sequence[Series]) -> list[float]:
    """Every value with its spread."""
    spread = [(one, [*one.spread] or [0.0] * len(one.y)) for one in series]
    return [v + sign * s for one, all_of in spread for v, s in zip(one.y, all_of, strict=True) if v is not None
            for sign in (-1, 1)]  # fmt: skip


def _look(one: Series, place: int) -> tuple[str, str, str]:
    number = place if one.number is None else one.number
    return COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)], MARKERS[number % len(MARKERS)]


def _line_key(colour: str, dash: str, marker: str, joined: bool) -> str:
    style = f' stroke-dasharray="{dash}"' if dash else ""
    line = f'<line x1="0" y1="-4" x2="27" y2="-4" stroke="{colour}" stroke-width="1.8"{style}/>' if joined else ""
    return line + marker_at(marker, 13.5, -4, colour)
