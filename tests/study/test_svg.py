"""Charts: well-formed, whole, labelled, and told apart without colour."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from utils.charts import (
    COLOURS,
    DASHES,
    FONT,
    HATCHES,
    MARKERS,
    WIDTH,
    Axis,
    Scale,
    Series,
    bar_chart,
    line_chart,
    row_chart,
    scatter,
    text_width,
)

SVG = "{http://www.w3.org/2000/svg}"
LABELS = ["FREEDOM", "SMORE", "GRCN", "LATTICE", "BM3", "PGL", "SLMRec", "LGMRec", "MGCN", "DRAGON", "GTC <w/o> & TC"]


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(svg).iter(f"{SVG}text")]


def lines(count: int = 11, points: int = 30) -> list[Series]:
    xs = [float(k + 1) for k in range(points)]
    return [Series(LABELS[k], [0.1 + 0.01 * k + x / 1000 for x in xs], xs, [0.02] * points) for k in range(count)]


def bars(count: int = 11) -> list[Series]:
    return [Series(LABELS[k], [0.1 + 0.01 * k, None, 0.2], spread=[0.01, 0.0, 0.0]) for k in range(count)]


GROUPS = Axis("group (name)", categories=("cold", "tail", "head"))
POINTS = [(k, label, 3.0 * 2**k, 0.1 + k / 100) for k, label in enumerate(LABELS)]
RECALL, SHARE = Axis("Recall@20 (share)"), Axis("share (0 to 1)", zero=True)
CHARTS = {
    "lines": line_chart("a", "Lines & more", Axis("epoch (number)"), RECALL, lines()),
    "few": line_chart("b", "Few", Axis("weight (no unit)", log=True), RECALL, lines(2, 3)),
    "bars": bar_chart("c", "Bars", GROUPS, SHARE, bars()),
    "rows": row_chart(
        "Rows & more", "share (0 to 1)", [(label, k / 50, 0.01) for k, label in enumerate(LABELS)], LABELS[1]
    ),
    "scatter": scatter("d", "Cost", Axis("time (s)", log=True), RECALL, POINTS),
}


@pytest.mark.parametrize("name", CHARTS)
def test_chart_is_well_formed_with_title_and_description(name):
    root = ET.fromstring(CHARTS[name])
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert description is not None
    assert title.text
    assert "Across: " in (description.text or "")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("lines", ("epoch (number)", "Recall@20 (share)")),
        ("few", ("weight (no unit)", "Recall@20 (share)")),
        ("bars", ("group (name)", "share (0 to 1)")),
        ("scatter", ("time (s)", "Recall@20 (share)")),
    ],
)
def test_axes_and_series_are_labelled(name, labels):
    found = texts(CHARTS[name])
    assert all(found.count(label) == 1 for label in labels)
    series = LABELS[:2] if name == "few" else LABELS
    assert all(found.count(label) == 1 for label in series)


@pytest.mark.parametrize("name", CHARTS)
def test_everything_lies_within_the_picture(name):
    root = ET.fromstring(CHARTS[name])
    height = float(root.get("height", 0))
    for node in root.iter(f"{SVG}text"):
        if node.get("transform"):
            continue
        x, y = float(node.get("x", -1)), float(node.get("y", -1))
        size = float(node.get("font-size", FONT))
        width = text_width(node.text or "", size)
        left = {"start": x, "middle": x - width / 2, "end": x - width}[node.get("text-anchor", "start")]
        assert left >= 0, node.text
        assert left + width <= WIDTH + 1, node.text
        assert size <= y <= height, node.text
    for node in root.iter(f"{SVG}polyline"):
        points = [tuple(map(float, pair.split(","))) for pair in node.get("points", "").split()]
        assert all(0 <= x <= WIDTH and 0 <= y <= height for x, y in points)


def test_series_differ_without_colour():
    root = ET.fromstring(CHARTS["lines"])
    looks = [
        (node.get("stroke-dasharray", ""), MARKERS[k % len(MARKERS)], node.get("stroke"))
        for k, node in enumerate(root.iter(f"{SVG}polyline"))
    ]
    assert len(looks) == len(LABELS)
    assert len({(dash, marker) for dash, marker, _ in looks}) == len(LABELS)
    assert len({colour for _, _, colour in looks}) == len(COLOURS)


def test_bars_of_more_series_than_colours_differ_by_hatch():
    root = ET.fromstring(CHARTS["bars"])
    fills = [node.get("fill") for node in root.iter(f"{SVG}rect") if node.get("width") == "22"]
    assert len(set(fills)) == len(LABELS)
    ids = {node.get("id") for node in root.iter(f"{SVG}pattern")}
    assert {f"url(#{name})" for name in ids} == {fill for fill in fills if fill and fill.startswith("url")}
    first_row = [HATCHES[k % len(HATCHES)] for k in range(len(COLOURS))]
    assert len(set(first_row)) == len(COLOURS), "the first seven differ in black and white"


def test_the_same_number_looks_the_same_in_every_chart():
    line = line_chart("a", "t", Axis("x (s)"), Axis("y (s)"), [Series("B", [1.0, 2.0], [0.0, 1.0], number=3)])
    assert f'stroke="{COLOURS[3]}"' in line
    assert f'stroke-dasharray="{DASHES[3]}"' in line
    bar = bar_chart("a", "t", Axis("x", categories=("g",)), Axis("y (s)", zero=True), [Series("B", [1.0], number=3)])
    assert COLOURS[3] in bar
    assert COLOURS[0] not in bar


def test_bar_heights_are_proportional_and_missing_bars_are_left_out():
    svg = bar_chart("a", "t", Axis("x", categories=("g", "h")), Axis("y (s)", zero=True),
                    [Series("A", [1.0, 3.0]), Series("B", [2.0, None])])  # fmt: skip
    rects = [n for n in ET.fromstring(svg).iter(f"{SVG}rect") if n.find(f"{SVG}title") is not None]
    heights = {n.findtext(f"{SVG}title"): float(n.get("height", 0)) for n in rects}
    assert set(heights) == {"A: 1", "A: 3", "B: 2"}
    assert heights["A: 3"] == pytest.approx(3 * heights["A: 1"], abs=0.2)
    assert heights["B: 2"] == pytest.approx(2 * heights["A: 1"], abs=0.2)


def test_rows_are_named_proportional_and_one_is_marked():
    svg = row_chart("t", "Recall (share)", [("A", 0.1, 0.0), ("B < A", 0.3, 0.05), ("C", -0.1, 0.0)], "B < A")
    rects = [n for n in ET.fromstring(svg).iter(f"{SVG}rect") if n.find(f"{SVG}title") is not None]
    widths = [float(n.get("width", 0)) for n in rects]
    assert [n.findtext(f"{SVG}title") for n in rects] == ["A: 0.1", "B < A: 0.3", "C: -0.1"]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.2)
    assert widths[2] == pytest.approx(widths[0], abs=0.2)
    assert [n.get("fill") for n in rects] == [COLOURS[0], COLOURS[1], COLOURS[0]]
    texts = [n.text for n in ET.fromstring(svg).iter(f"{SVG}text")]
    assert {"A", "B < A", "C", "0.3000", "Recall (share)"} <= set(texts)
    assert svg.count("m0,-3v6") == 1, "an error bar where there is a spread"


def test_band_where_points_are_many_and_error_bars_where_they_are_few():
    assert CHARTS["lines"].count("fill-opacity") == 11
    assert "fill-opacity" not in CHARTS["few"]
    assert CHARTS["few"].count("h6M") == 6


def test_labels_of_a_scatter_do_not_cover_each_other():
    points = [(k, f"Model{k}", 1.0 + 0.001 * k, 0.5) for k in range(6)]
    svg = scatter("a", "t", Axis("x (s)"), Axis("y (s)"), points)
    boxes = [
        (
            float(n.get("x", 0)) - (text_width(n.text or "") if n.get("text-anchor") == "end" else 0),
            float(n.get("y", 0)) - FONT + 2,
            text_width(n.text or ""),
        )
        for n in ET.fromstring(svg).iter(f"{SVG}text")
        if (n.text or "").startswith("Model")
    ]
    assert len(boxes) == 6
    for i, (x, y, w) in enumerate(boxes):
        for u, v, q in boxes[:i]:
            assert x + w <= u + 0.2 or u + q <= x + 0.2 or abs(y - v) >= FONT - 0.2


def test_ticks_are_round_cover_the_range_and_are_not_too_many():
    for low, high in ((0.0, 1.0), (0.1217, 0.1311), (3.0, 8000.0), (-0.4, 0.3)):
        ticks = Scale(low, high, False, 0.0, 100.0).ticks()
        assert 3 <= len(ticks) <= 8
        assert all(low - 1e-9 <= value <= high + 1e-9 and float(word) == pytest.approx(value) for value, word in ticks)
        assert len({word for _, word in ticks}) == len(ticks)
    assert [word for _, word in Scale(1e-5, 1e-1, True, 0.0, 1.0).ticks()] == [
        "1e-05",
        "0.0001",
        "0.001",
        "0.01",
        "0.1",
    ]
    assert [word for _, word in Scale(1.0, 60.0, True, 0.0, 1.0).ticks()] == ["1", "2", "5", "10", "20", "50"]


def test_logarithmic_scale_places_decades_evenly():
    scale = Scale(0.01, 100.0, True, 0.0, 400.0)
    assert [round(scale(v)) for v in (0.01, 0.1, 1.0, 10.0, 100.0)] == [0, 100, 200, 300, 400]


@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
def test_a_single_value_is_drawn(value):
    svg = line_chart("a", "t", Axis("x (s)"), Axis("y (s)"), [Series("A", [value], [value])])
    assert not re.search(r"nan|inf", svg)
    assert ET.fromstring(svg).find(f".//{SVG}circle") is not None


def test_long_category_names_are_turned_and_stay_inside():
    names = tuple(f"{k}00-{k}99 training interactions" for k in range(1, 6))
    svg = bar_chart("a", "t", Axis("g", categories=names), Axis("y (s)", zero=True), [Series("A", [0.1] * 5)])
    root = ET.fromstring(svg)
    turned = [n for n in root.iter(f"{SVG}text") if (n.text or "") in names]
    assert all("rotate(-30" in n.get("transform", "") for n in turned)
    leftmost = min(float(n.get("x", 0)) - 0.87 * text_width(n.text or "") for n in turned)
    assert leftmost >= 16, "clear of the label of the other axis"
    lowest = max(float(n.get("y", 0)) + 0.5 * text_width(n.text or "") for n in turned)
    label = next(n for n in root.iter(f"{SVG}text") if n.text == "g")
    assert float(label.get("y", 0)) - FONT >= lowest - 0.6 * FONT
