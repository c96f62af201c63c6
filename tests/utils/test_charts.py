"""Charts: what is drawn, that it can be told apart without colour, and that equal charts give equal bytes."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from utils.charts import COLOURS, FORMS, HATCHES, Axis, Series, bar_chart, line_chart, rendered, row_chart, scatter

X, Y = Axis("epoch (number)"), Axis("value (share, 0 to 1)")


def lines(n: int = 3, points: int = 30, spread: float = 0.0) -> list[Series]:
    xs = list(range(1, points + 1))
    ys = [[0.1 * k + 0.01 * x for x in xs] for k in range(n)]
    return [Series(f"entry {k}", ys[k], xs, [spread] * points if spread else ()) for k in range(n)]


@pytest.mark.parametrize("form", FORMS)
def test_equal_charts_give_equal_bytes(form):
    first, second = (rendered(line_chart("A chart", X, Y, lines(spread=0.01)), form) for _ in range(2))
    assert first == second
    assert first != rendered(line_chart("A chart", X, Y, lines(spread=0.02)), form)


def test_text_stays_text_in_svg():
    svg = rendered(line_chart("A & B < C", X, Y, lines(2)), "svg").decode()
    texts = [node.text for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"A & B < C", "epoch (number)", "value (share, 0 to 1)", "entry 0", "entry 1"} <= set(texts)


def test_lines_differ_in_colour_dash_and_marker():
    axes = line_chart("A chart", X, Y, lines(len(COLOURS))).axes[0]
    looks = [(line.get_color(), line.get_marker(), line.get_markerfacecolor()) for line in axes.lines]
    assert len({look[0] for look in looks}) == len(COLOURS)
    assert len({look[1:] for look in looks}) == len(COLOURS)
    assert len({str(line._dash_pattern) for line in axes.lines[:6]}) == 6


def test_a_series_keeps_the_look_of_its_number():
    first, third = (line_chart("t", X, Y, [Series("a", [1, 2], [1, 2], number=k)]).axes[0].lines[0] for k in (0, 2))
    assert (first.get_color(), third.get_color()) == (COLOURS[0], COLOURS[2])


def test_spread_is_a_band_where_points_are_many_and_bars_where_they_are_few():
    many, few = (line_chart("t", X, Y, lines(1, n, spread=0.05)).axes[0] for n in (30, 5))
    (band,) = many.collections
    low, high = band.get_datalim(many.transData).intervaly
    assert (low, high) == pytest.approx((0.01 - 0.05, 0.3 + 0.05))
    assert len(few.containers) == 1, "error bars"
    assert not many.containers


def test_what_is_missing_is_left_out():
    axes = line_chart("t", X, Y, [Series("a", [0.1, None, 0.3], [1, 2, 3], [0.1, 0.1, 0.1])]).axes[0]
    (line,) = [line for line in axes.lines if line.get_label() == "a"]
    assert list(line.get_xdata()) == [1, 3]
    bars = bar_chart("t", Axis("m", categories=("x", "y")), Y, [Series("a", [0.5, None])]).axes[0]
    assert [patch.get_height() for patch in bars.patches] == [0.5]


def test_bars_stand_in_groups_beside_each_other_from_zero():
    series = [Series("a", [0.5, 0.6], spread=[0.1, 0.0]), Series("b", [0.7, 0.8])]
    axes = bar_chart("t", Axis("metric", categories=("x", "y")), Axis("v", zero=True), series).axes[0]
    bars = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    ordered = sorted(bars)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(ordered)), "none covers another"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y"]
    assert axes.get_ylim()[0] == 0
    assert {patch.get_hatch() for patch in axes.patches} == {HATCHES[0], HATCHES[1]}


def test_long_names_of_categories_are_turned():
    names = tuple(f"a rather long name {k}" for k in range(6))
    axes = bar_chart("t", Axis("m", categories=names), Y, [Series("a", [0.5] * 6)]).axes[0]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {30.0}


def test_rows_have_their_name_beside_and_their_value_behind():
    chart = row_chart("t", "across", [("first", 0.25, 0.01), ("second", 0.5, 0.0)], marked="second")
    axes = chart.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["second", "first"], "the first one stands above"
    assert [patch.get_width() for patch in axes.patches] == [0.5, 0.25]
    assert len({patch.get_facecolor() for patch in axes.patches}) == 2
    assert [text.get_text() for text in axes.texts] == ["0.5000", "0.2500"]


def test_labels_of_points_cover_neither_points_nor_labels():
    random = np.random.default_rng(0)
    points = [(k, f"an entry {k}", float(x), float(y)) for k, (x, y) in enumerate(random.random((12, 2)) * 0.3)]
    chart = scatter("t", Axis("time (s)"), Y, points)
    chart.draw_without_rendering()
    axes = chart.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == len(points)
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    at = [axes.transData.transform((x, y)) for _, _, x, y in points]
    assert not any(box.contains(*place) for box in boxes for place in at)


def test_a_logarithmic_axis_has_plain_numbers():
    chart = line_chart("t", Axis("key", log=True), Y, [Series("a", [1, 2, 3], [1e-4, 1e-3, 1e-2])])
    chart.draw_without_rendering()
    shown = {label.get_text() for label in chart.axes[0].get_xticklabels()}
    assert {"0.0001", "0.001", "0.01"} <= shown
