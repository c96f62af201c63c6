"""The frame of a chart as SVG text: scales, ticks, axes, markers, hatches, legend, labels that keep clear of each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

# Without yellow, which is lost on white. Source: Okabe and Ito, "Color Universal Design", 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "plus", "down", "ring")
HATCHES = ("", "up", "down", "across", "level", "upright", "dots")
WIDTH, PLOT_HEIGHT, FONT = 560, 250, 12
INK, FAINT = "#222222", "#dddddd"


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


@dataclass
class Scale:
    """From values to pixels, with ticks."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values within the range, and what is written at them."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 2 else (1,)
            values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            return [(v, f"{v:g}") for v in values if self.low * 0.999 <= v <= self.high * 1.001]
        raw = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * s for s in (1, 2, 5, 10) if power * s >= raw * 0.999)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        count = range(math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6) + 1)
        return [(k * step, f"{k * step:.{decimals}f}" if step < 1e6 else f"{k * step:g}") for k in count]


def text_width(text: str, size: float = FONT) -> float:
    """About the width of a text in pixels, rather more than less."""
    return size * sum(0.76 if sign.isupper() or sign in "mw@%" else 0.57 for sign in text)


def path_of(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def marker_at(kind: str, x: float, y: float, colour: str, said: str = "") -> str:
    title = f"<title>{escape(said)}</title>" if said else ""
    if kind in ("circle", "ring"):
        fill = "#ffffff" if kind == "ring" else colour
        shape, style = (
            f'circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"',
            f'fill="{fill}" stroke="{colour}" stroke-width="1.4"',
        )
    elif kind in ("cross", "plus"):
        a, b = (3.4, 3.4) if kind == "cross" else (4.4, 0.0)
        shape = (
            f'path d="M{x - a:.1f},{y - b:.1f}L{x + a:.1f},{y + b:.1f}M{x - b:.1f},{y + a:.1f}L{x + b:.1f},{y - a:.1f}"'
        )
        style = f'fill="none" stroke="{colour}" stroke-width="2"'
    else:
        corners = {
            "square": ((-3.4, -3.4), (3.4, -3.4), (3.4, 3.4), (-3.4, 3.4)),
            "triangle": ((0, -4.6), (4.2, 3.2), (-4.2, 3.2)),
            "down": ((0, 4.6), (4.2, -3.2), (-4.2, -3.2)),
            "diamond": ((0, -4.8), (4.8, 0), (0, 4.8), (-4.8, 0)),
        }[kind]
        shape, style = f'polygon points="{path_of([(x + a, y + b) for a, b in corners])}"', f'fill="{colour}"'
    return f"<{shape} {style}>{title}</{shape.split()[0]}>"


@dataclass
class Drawing:
    """The frame of a chart: title, axes with ticks and labels, legend; what is added lies within the axes."""

    name: str
    title: str
    x_axis: Axis
    y_axis: Axis
    xs: Sequence[float]
    ys: Sequence[float]
    room: float = 0.04
    parts: list[str] = field(default_factory=list)
    patterns: dict[int, str] = field(default_factory=dict)
    below: float = 0.0  # height of what stands below the axis

    def __post_init__(self) -> None:
        lines = wrapped(self.title, WIDTH - 20, FONT + 2)
        self.top = 10 + 18 * len(lines) + 6
        self.bottom = self.top + PLOT_HEIGHT
        self.y = self._scale(self.y_axis, self.ys, self.bottom, self.top)
        y_ticks = self.y.ticks()
        left = 34 + max((text_width(word) for _, word in y_ticks), default=0)
        self.left, self.right = left, WIDTH - 16.0
        if self._turned():  # the first name reaches to the left of its place
            half = 0.5 / len(self.x_axis.categories)  # its place is left + half (right - left)
            self.left = max(left, (20 + 0.87 * self._widest_category() - half * self.right) / (1 - half))
        self.x = self._scale(self.x_axis, self.xs, self.left, self.right)
        for k, line in enumerate(lines):
            self.write(WIDTH / 2, 24 + 18 * k, line, "middle", FONT + 2, bold=True)
        for value, word in y_ticks:
            at = self.y(value)
            self.add(f'<line x1="{self.left:.1f}" x2="{self.right}" y1="{at:.1f}" y2="{at:.1f}" stroke="{FAINT}"/>')
            self.write(self.left - 6, at + 4, word, "end")
        self._x_ticks()
        self.add(
            f'<path d="M{self.left:.1f},{self.top}V{self.bottom}H{self.right}" fill="none" stroke="{INK}"/>'
        )  # fmt: skip
        label_at = self.bottom + self.below
        self.write((self.left + self.right) / 2, label_at, self.x_axis.label, "middle")
        middle = (self.top + self.bottom) / 2
        self.write(16, middle, self.y_axis.label, "middle", turn=-90)
        self.below += 14

    def _scale(self, axis: Axis, values: Sequence[float], start: float, end: float) -> Scale:
        if axis.categories:
            return Scale(-0.5, len(axis.categories) - 0.5, False, start, end)
        low, high = min(values, default=0.0), max(values, default=1.0)
        if axis.log and low > 0:
            room = max((high / low) ** self.room, 1.1)
            return Scale(low / room, high * room, True, start, end)
        if axis.zero:
            low, high = min(low, 0.0), max(high, 0.0)
        room = (high - low) * self.room or abs(high) * 0.1 or 1.0
        down = 0.0 if axis.zero and low == 0 else room
        return Scale(low - down, high + room, False, start, end)

    def _x_ticks(self) -> None:
        categories = self.x_axis.categories
        ticks = [(float(k), word) for k, word in enumerate(categories)] or self.x.ticks()
        turned = self._turned()
        for value, word in ticks:
            at = self.x(value)
            self.add(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{self.bottom}" y2="{self.bottom + 4}" stroke="{INK}"/>')
            if turned:
                self.write(at + 4, self.bottom + 14, word, "end", turn=-30)
            else:
                self.write(at, self.bottom + 17, word, "middle")
        self.below = (26 + self._widest_category() / 2 if turned else 20) + 18

    def _widest_category(self) -> float:
        return max((text_width(word) for word in self.x_axis.categories), default=0.0)

    def _turned(self) -> bool:
        """Whether the names of the categories are too wide to stand upright side by side."""
        slot = (self.right - self.left) / max(len(self.x_axis.categories), 1)
        return self._widest_category() > slot - 4

    def y_clipped(self, value: float) -> float:
        """Where a value stands; the foot of the chart for what a logarithm has not."""
        return self.y(max(value, self.y.low)) if self.y.log else self.y(value)

    def add(self, part: str) -> None:
        self.parts.append(part)

    def write(
        self, x: float, y: float, text: str, anchor: str = "start", size: int = FONT, bold: bool = False, turn: int = 0
    ) -> None:
        """A text at a point."""
        self.add(written(x, y, text, anchor, size, bold, turn))

    def error_bar(self, x: float, value: float, spread: float) -> None:
        """An error bar at x pixels."""
        high, low = self.y(value + spread), self.y_clipped(value - spread)
        self.add(
            f'<path d="M{x - 3:.1f},{high:.1f}h6M{x:.1f},{high:.1f}V{low:.1f}M{x - 3:.1f},{low:.1f}h6" fill="none" '
            f'stroke="{INK}" stroke-width="1"/>'
        )

    def hatch(self, number: int) -> str:
        """The fill of a kind of bar."""
        colour = COLOURS[number % len(COLOURS)]
        kind = HATCHES[(number + number // len(COLOURS)) % len(HATCHES)]
        if not kind:
            return colour
        mark = {
            "up": '<path d="M0,8L8,0M-2,2L2,-2M6,10L10,6"/>',
            "down": '<path d="M0,0L8,8M-2,6L2,10M6,-2L10,2"/>',
            "across": '<path d="M0,0L8,8M8,0L0,8"/>',
            "level": '<path d="M0,4H8"/>',
            "upright": '<path d="M4,0V8"/>',
            "dots": '<circle cx="4" cy="4" r="1.1"/>',
        }[kind]
        name = f"{self.name}-hatch{number}"
        light = INK if colour != "#000000" else "#ffffff"
        self.patterns[number] = (
            f'<pattern id="{escape(name)}" width="8" height="8" patternUnits="userSpaceOnUse"><rect width="8" height="8" '
            f'fill="{colour}"/><g stroke="{light}" stroke-width="0.9" fill="{light}">{mark}</g></pattern>'
        )
        return f"url(#{escape(name)})"

    def legend(self, keys: Sequence[tuple[str, str]]) -> None:
        """Keys and labels in rows below the axis."""
        x, y = 16.0, self.bottom + self.below + 12
        for label, key in keys:
            width = 33 + text_width(label) + 14
            if x > 16 and x + width > WIDTH:
                x, y = 16.0, y + 20
            self.add(f'<g transform="translate({x:.1f} {y:.1f})">{key}</g>')
            self.write(x + 33, y, label)
            x += width
        self.below = y - self.bottom

    def place_label(
        self, width: float, x: float, y: float, taken: Sequence[tuple[float, float, float, float]]
    ) -> tuple[float, float]:
        """The left and top of a label beside (x, y) that covers nothing, the nearest place first."""
        for far in range(12):
            for down in (0, 1) if far else (0,):
                shift = far * (FONT + 1) * (-1 if down else 1)
                for left in (x + 9, x - 9 - width, x - width / 2):
                    top = y - FONT / 2 + shift
                    box = (left, top, left + width, top + FONT)
                    inside = left > self.left + 2 and box[2] < self.right and top > self.top and box[3] < self.bottom
                    if inside and not any(_overlap(box, other) for other in taken):
                        return left, top
        return min(x + 9, self.right - width), y - FONT / 2

    def text(self) -> str:
        """The whole chart."""
        defs = f"<defs>{''.join(self.patterns.values())}</defs>" if self.patterns else ""
        description = f"{self.title}. Across: {self.x_axis.label}. Up: {self.y_axis.label}."
        return framed(self.title, description, self.bottom + self.below + 16, defs, self.parts)


def framed(title: str, description: str, height: float, defs: str, parts: Sequence[str]) -> str:
    """A chart of the usual width around its parts."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" font-family="Helvetica, Arial, sans-serif" font-size="{FONT}" fill="{INK}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{defs}"
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>' + "\n".join(parts) + "</svg>\n"
    )


def written(
    x: float, y: float, text: str, anchor: str = "start", size: int = FONT, bold: bool = False, turn: int = 0
) -> str:
    """A text at a point."""
    extra = (' font-weight="bold"' if bold else "") + (f' font-size="{size}"' if size != FONT else "")
    extra += f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def wrapped(text: str, width: float, size: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
