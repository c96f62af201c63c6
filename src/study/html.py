"""The report as one HTML page: it needs no other file and no network, its tables sort, and it prints."""

from __future__ import annotations

from html import escape

from study.content import Cell, Content, Table
from study.spec import Study

STYLE = """
body { font: 15px/1.5 Helvetica, Arial, sans-serif; color: #222; margin: 0 auto; max-width: 1240px; padding: 0 20px 40px; }
h1 { font-size: 26px; margin: 24px 0 4px; } h2 { font-size: 19px; margin: 32px 0 6px; }
nav a { margin-right: 14px; } a { color: #0072B2; }
p.caption, figcaption { color: #444; font-size: 13px; margin: 4px 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: 6px 0; }
th, td { padding: 4px 10px; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
thead th { border-top: 2px solid #222; border-bottom: 1px solid #222; }
tbody tr:last-child td { border-bottom: 1px solid #222; } tfoot td { border-bottom: 2px solid #222; }
th button { font: inherit; font-weight: bold; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button::after { content: " \\2195"; color: #999; }
th[aria-sort=ascending] button::after { content: " \\2191"; color: #222; }
th[aria-sort=descending] button::after { content: " \\2193"; color: #222; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); gap: 18px; }
figure { margin: 0; border: 1px solid #ddd; padding: 6px; } figure svg { width: 100%; height: auto; }
@media print { nav, th button::after { display: none; } body { max-width: none; } .wide { overflow: visible; }
  figure, table { break-inside: avoid; } h2, p.caption { break-after: avoid; } .figures { grid-template-columns: 1fr 1fr; } }
@media (max-width: 520px) { .figures { grid-template-columns: 1fr; } }
"""

SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, column = head.cellIndex, body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") &&
      !head.classList.contains("number"));
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? order : -order;
    });
    body.append(...rows);
  });
}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
HEADINGS = {
    "convergence": "Convergence",
    "hyper_parameters": "Validation against hyper-parameters",
    "ablation": "Entries side by side",
    "balance": "Modality balance",
    "dot_products": "Dot products by modality",
    "groups": "Groups of users and items",
    "missing": "Items that lack content",
    "cost": "Accuracy against cost",
}


def to_html(content: Content) -> str:
    """The page."""
    study = content.study
    parts = [f"<h1>{escape(study.title)}</h1>"]
    parts.append(f'<p class="caption">Study {escape(study.name)}: {escape(scope(content))}</p>')
    kinds = list(dict.fromkeys(figure.kind for figure in content.figures))
    tables = [*content.main, *content.tables]
    links = [(f"t{k}", table.title) for k, table in enumerate(tables)] + [(kind, HEADINGS[kind]) for kind in kinds]
    parts.append("<nav>" + "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in links) + "</nav>")
    if content.notes:
        parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in content.notes) + "</ul>")
    parts += [_section(f"t{k}", table) for k, table in enumerate(tables)]
    for kind in kinds:
        shown = "".join(
            # In a page the name space is known, and an address in it would be the only one.
            f"<figure>{figure.svg.replace(' xmlns=' + chr(34) + 'http://www.w3.org/2000/svg' + chr(34), '')}"
            f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
            for figure in content.figures
            if figure.kind == kind
        )
        parts.append(f'<section id="{kind}"><h2>{HEADINGS[kind]}</h2><div class="figures">{shown}</div></section>')
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(study.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def scope(content: Content) -> str:
    """What the study ran, in a line."""
    study = content.study
    trials = sum(len(point.trials) for one in content.chosen for point in one.tried)
    done = sum(one.count("finished") for one in content.chosen)
    return (
        f"{len(study.entries)} entries, data sets {', '.join(study.datasets)}, seeds "
        f"{', '.join(map(str, study.seeds))}, search {study.search.method}{_by_seeds(study)}; {done} of {trials} trials "
        "finished."
    )


def _by_seeds(study: Study) -> str:
    if study.search.seeds is None:
        return ""
    words = ", ".join(map(str, study.search_seeds))
    return f" by seed {words} alone" if study.search.seeds == 1 else f" by seeds {words} alone"


def _section(name: str, table: Table) -> str:
    numeric = [any(isinstance(row[k].value, int | float) for row in table.rows) for k in range(len(table.header))]
    head = "".join(
        f'<th scope="col"{_class(number)}><button type="button">{escape(word)}</button></th>'
        for word, number in zip(table.header, numeric, strict=True)
    )
    body = "".join(f"<tr>{_cells(row, numeric)}</tr>" for row in table.rows)
    foot = "".join(f"<tr>{_cells(row, numeric)}</tr>" for row in table.foot)
    foot = f"<tfoot>{foot}</tfoot>" if foot else ""
    return (
        f'<section id="{name}"><h2>{escape(table.title)}</h2><p class="caption">{escape(table.caption)}</p>'
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table></div></section>'
    )


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _cells(row: tuple[Cell, ...], numeric: list[bool]) -> str:
    parts = []
    for cell, number in zip(row, numeric, strict=True):
        text = escape(cell.text)
        text = {"best": f"<b>{text}</b>", "second": f"<u>{text}</u>"}.get(cell.mark, text)
        value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
        parts.append(f"<td{_class(number)}{value}>{text}</td>")
    return "".join(parts)
