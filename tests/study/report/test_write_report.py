"""The report in each of its forms: Markdown, CSV, JSON, LaTeX, HTML and SVG, whole and from unfinished studies."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
import re
import shutil
import statistics
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers import problems_of
from study_tools import METRICS, full_results, make_study, make_trial

from study.report.latex import escape, to_latex
from study.report.page import to_html
from study.report.tables import Content, marks, percent
from study.report.write_report import gather, markdown, terminal, write_report
from study.results import TrialResult
from study.spec import FIGURES, Study
from study.statistics import Comparison
from utils.charts import rendered

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Reads a page: that every element is closed in order, what the tables hold, and which attributes point elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.marks: dict[str, list[str]] = {"b": [], "u": []}
        self.values: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found[name] or "" for name in ("href", "src", "xlink:href") if name in found]
        self.values += [found["data-value"] or ""] if "data-value" in found else []
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
        if self.open and self.open[-1] in self.marks:
            self.marks[self.open[-1]].append(data)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study, list[TrialResult]]:
    """The folder of a report with everything in it; its labels would break what does not escape them."""
    root = tmp_path_factory.mktemp("study")
    labels = ["Base <50%>", "A_1 & $x$", "GTC #1 {~^\\}"]
    study = make_study(labels, ("demo", "baby_x"), (1, 2, 3), labels[2], figures=FIGURES, beyond_accuracy=True)
    without = dataclasses.replace(study.entries[1], settings={"missing_share": {"visual": 0.5}})
    study = dataclasses.replace(study, entries=(study.entries[0], without, study.entries[2]))
    results = full_results(root, study)
    write_report(study, results, root / "report", ("svg",))
    return root / "report", study, results


def two_entries(root: Path, reference: str | None = "B") -> tuple[Study, list[TrialResult]]:
    """B beats A on recall by 25 %, A beats B on NDCG."""
    values: dict[str, dict[str, float]] = {
        "A": {"recall@10": 0.2, "recall@20": 0.4, "ndcg@10": 0.3, "ndcg@20": 0.36},
        "B": {"recall@10": 0.25, "recall@20": 0.5, "ndcg@10": 0.15, "ndcg@20": 0.27},
        "C": {"recall@10": 0.1, "recall@20": 0.2, "ndcg@10": 0.1, "ndcg@20": 0.1},
    }
    results = [make_trial(root, label, 1, 0.5, test) for label, test in values.items()]
    return make_study(list(values), seeds=(1,), reference=reference), results


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_marks_by_printed_decimals():
    assert marks([0.1, 0.3, 0.2]) == ["", "best", "second"]
    assert marks([0.30001, 0.30002, None, 0.2]) == ["best", "best", "", "second"]
    assert marks([0.3]) == marks([0.3, None])[:1] == [""]
    assert marks([None, None]) == ["", ""]


def test_improvement_as_papers_print_it():
    def comparison(improvement: float | None, p: float | None) -> Comparison:
        holm = {"users_t": p}
        return Comparison("sports", "ndcg@5", "GTC", "DRAGON", (0.0961, 0.0749), improvement, 9, 3, {}, holm)

    # The paper's NDCG@5 on Sports, 0.0961 against 0.0749, is its improvement of 28.30 %.
    assert percent(comparison(100 * (0.0961 - 0.0749) / 0.0749, 0.001)) == "28.30%**"
    assert percent(comparison(-3.456, 0.2)) == "-3.46%"
    assert percent(comparison(None, None)) == percent(None) == "n/a"


def test_best_is_bold_second_underlined_in_every_form(tmp_path, capsys):
    study, results = two_entries(tmp_path)
    content = gather(study, results)
    page = Page(to_html(content, svgs(content)))
    assert page.marks == {"b": ["0.3000", "0.3600", "0.2500", "0.5000"], "u": ["0.2000", "0.4000", "0.1500", "0.2700"]}
    lines = markdown(content).splitlines()
    assert "| A | 0.5000 | <u>0.2000</u> | <u>0.4000</u> | **0.3000** | **0.3600** |" in lines
    assert "| B over the best other |  | 25.00% | 25.00% | -50.00% | -25.00% |" in lines
    latex = to_latex(content)
    assert r"demo & Recall@10 & \underline{0.2000} & \textbf{0.2500} & 0.1000 & 25.00\% \\" in latex
    assert r" & NDCG@10 & \textbf{0.3000} & \underline{0.1500} & 0.1000 & $-$50.00\% \\" in latex
    write_report(study, results, tmp_path / "report")
    printed = capsys.readouterr().out
    assert re.search(r"^A +0.5000 +0.2000 \(2\) +0.4000 \(2\) +0.3000 \(1\) +0.3600 \(1\)$", printed, re.M)
    assert f"report in {tmp_path / 'report' / 'report.html'}" in printed


def test_without_a_reference_nothing_is_compared(tmp_path):
    study, results = two_entries(tmp_path, None)
    content = gather(study, results)
    text = markdown(content) + to_latex(content) + terminal(content)
    assert "Improv" not in text
    assert "over the best other" not in text
    assert "Significance" not in text


def test_files_of_a_report(full):
    folder, _, _ = full
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"report.md", "main.csv", "trials.csv", "main.tex", "report.html", "statistics.json"} < names
    kinds = {name.split("/")[1].partition("-")[0] for name in names if name.startswith("figures/")}
    assert kinds == set(FIGURES)
    assert all(path.name[0] != "." for path in folder.rglob("*")), "no temporary file is left"


def test_main_csv_has_full_precision(full):
    folder, study, results = full
    rows = rows_of(folder / "main.csv")
    assert [(row["dataset"], row["label"]) for row in rows] == [
        (dataset, entry.label) for dataset in study.datasets for entry in study.entries
    ]
    row = rows[0]
    mine = [r for r in results if (r.dataset, r.label) == ("demo", row["label"])]
    point = next(
        r.point
        for r in mine
        if f"tc_weight={r.point['tc_weight']:g}, n_ui_layers={r.point['n_ui_layers']}" == row["selected"]
    )
    values = [r.metrics["test"]["ndcg@20"] for r in mine if r.point == point]
    assert float(row["test_ndcg@20"]) == statistics.fmean(values)
    assert float(row["test_ndcg@20_std"]) == statistics.stdev(values)
    assert float(row["coverage@20"]) == pytest.approx(0.4)
    reference = next(r for r in rows if r["label"] == study.reference)
    assert float(reference["improvement_percent_recall@20"]) > 0
    assert row["improvement_percent_recall@20"] == ""


def test_trials_csv_has_every_trial(full):
    folder, _, results = full
    rows = rows_of(folder / "trials.csv")
    assert len(rows) == len(results)
    assert [float(row["test_recall@20"]) for row in rows] == [r.metrics["test"]["recall@20"] for r in results]
    assert {row["point_n_ui_layers"] for row in rows} == {"1", "2"}
    assert all((folder.parent / row["run"]).is_dir() for row in rows)


def test_statistics_json(full):
    folder, study, _ = full
    found = json.loads((folder / "statistics.json").read_text())
    assert (found["reference"], found["correction"]) == (study.reference, "Holm")
    assert len(found["runner_up"]) == len(study.datasets) * len(METRICS)
    assert len(found["every"]) == 2 * len(found["runner_up"])
    assert all(one["holm"]["users_t"] >= one["p"]["users_t"] for one in found["every"])


def test_page_is_well_formed_self_contained_and_shows_all(full):
    folder, study, _ = full
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    pictures = [link for link in page.links if not link.startswith("#")]
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert len(set(page.ids)) == len(page.ids)
    labels = {entry.label for entry in study.entries}
    for table in page.tables[: len(study.datasets)]:
        assert [row[0] for row in table[1:-1]] == [entry.label for entry in study.entries]
        assert table[-1][0] == f"{study.reference} over the best other"
    assert {row[1] for row in page.tables[4][1:]} == labels, "the table beyond accuracy"
    drawn = [path.read_bytes() for path in (folder / "figures").glob("*.svg")]
    shown = [base64.b64decode(link.removeprefix("data:image/svg+xml;base64,")) for link in pictures]
    assert sorted(shown) == sorted(drawn)


def test_cells_carry_what_they_are_sorted_by(full):
    folder, _, _ = full
    page = Page((folder / "report.html").read_text())
    numbers = [value for value in page.values if re.fullmatch(r"-?[\d.e-]+", value)]
    assert len(numbers) > 100
    assert all(float(value) < 1e6 for value in numbers)


def test_every_figure_is_well_formed_and_labelled(full):
    folder, study, _ = full
    paths = sorted((folder / "figures").glob("*.svg"))
    units = re.compile(r"\((share|number|no unit|value|s|MiB|training interactions|group)[^)]*\)|^test metric$")
    assert len(paths) == len(study.datasets) * (1 + 3 * 2 + 1 + 1 + 3 + 1 + 2 + 2)
    for path in paths:
        texts = [node.text or "" for node in ET.fromstring(path.read_text()).iter(f"{SVG}text")]
        assert len([text for text in texts if units.search(text)]) >= 2, f"{path.name}: both axes have a unit"


def test_markdown_shows_every_figure_that_is_there(full):
    folder, _, _ = full
    shown = re.findall(r"!\[.*\]\((.+\.svg)\)", (folder / "report.md").read_text())
    assert sorted(shown) == sorted(f"figures/{path.name}" for path in (folder / "figures").glob("*.svg"))


def test_unfinished_study_says_what_is_missing(tmp_path):
    study, results = two_entries(tmp_path)
    failed = dataclasses.replace(results[0], status="failed", metrics={}, error="no | memory")
    left = dataclasses.replace(results[2], status="open", metrics={})
    content = gather(
        dataclasses.replace(study, report=dataclasses.replace(study.report, figures=FIGURES)),
        [failed, results[1], left],
    )
    text = markdown(content)
    assert "A on demo: no point has finished with every seed, so it has no row." in text
    assert "C on demo: trials not finished: 1; it has no row yet." in text
    assert "| demo | A | fixed settings | 1 | failed | no \\| memory |" in text
    assert "| A | - | - | - | - | - |" in text
    assert "No figure balance for demo: the runs have no balance" in text
    assert content.comparisons.runner_up == []
    assert r"& -- & 0.2500 & -- \\" in to_latex(content)
    Page(to_html(content, svgs(content)))


def test_study_of_which_nothing_has_run(tmp_path):
    study = make_study(["A", "B"], reference="A", figures=FIGURES, beyond_accuracy=True)
    write_report(study, [], tmp_path / "report")
    assert "No figure convergence for demo: no run has finished." in (tmp_path / "report" / "report.md").read_text()
    assert rows_of(tmp_path / "report" / "trials.csv") == []


def test_figures_of_an_earlier_report_go(tmp_path):
    study, results = two_entries(tmp_path)
    figures = tmp_path / "report" / "figures"
    write_report(
        dataclasses.replace(study, report=dataclasses.replace(study.report, figures=("ablation",))),
        results,
        figures.parent,
    )
    assert {path.name for path in figures.iterdir()} == {f"ablation-demo.{form}" for form in ("svg", "pdf", "png")}
    assert (figures / "ablation-demo.pdf").read_bytes().startswith(b"%PDF")
    assert (figures / "ablation-demo.png").read_bytes().startswith(b"\x89PNG")
    write_report(study, results, figures.parent)
    assert list(figures.iterdir()) == []


def test_more_entries_than_colours_are_rows_of_a_figure_for_each_metric_and_group(tmp_path):
    labels = [f"entry {k}" for k in range(8)]
    grouped = {"groups": {"signal": {"joint": {"recall@20": 0.2}, "separate": {"recall@20": 0.3}}}}
    results = [make_trial(tmp_path, label, 1, 0.5, 0.25, metrics=grouped) for label in labels]
    study = make_study(labels, seeds=(1,), reference=labels[3], figures=("ablation", "groups"))
    write_report(study, results, tmp_path / "report")
    found = {path.name: path.read_text() for path in (tmp_path / "report" / "figures").glob("*.svg")}
    assert set(found) == {
        "ablation-demo-recall_20.svg", "ablation-demo-ndcg_20.svg", "groups-demo-signal-joint.svg",
        "groups-demo-signal-separate.svg",
    }  # fmt: skip
    assert all(f">{label}</text>" in svg for svg in found.values() for label in labels)
    assert found["groups-demo-signal-joint.svg"].count(">0.2000</text>") == len(labels)
    assert found["groups-demo-signal-separate.svg"].count(">0.3000</text>") == len(labels)
    table = (tmp_path / "report" / "main.tex").read_text()
    assert r"Data set & Model & Recall@10 & Recall@20 & NDCG@10 & NDCG@20 \\" in table, "entries down, nothing scaled"
    assert "demo & entry 0 & " in table
    assert "resizebox" not in table


def test_mixture_is_refused_and_nothing_written(tmp_path):
    study, results = two_entries(tmp_path)
    other = dataclasses.replace(results[0], manifest={**results[0].manifest, "protocol": "strict"})
    (line,) = problems_of(lambda: write_report(study, [other, *results[1:]], tmp_path / "report"))
    assert "protocol: strict (A on demo, seed 1) but mmrec (B on demo, seed 1)" in line
    assert not (tmp_path / "report").exists()


def test_only_selected_runs_count_for_the_refusal(tmp_path):
    study, results = two_entries(tmp_path)
    worse = make_trial(tmp_path, "A", 1, 0.1, 0.1, {"key": 1}, manifest={"protocol": "strict"})
    assert gather(study, [*results, worse]).chosen[0].best is not None


def svgs(content: Content) -> dict[str, bytes]:
    return {figure.name: rendered(figure.chart, "svg") for figure in content.figures}


def hyper_figure(root: Path, values: list[Any], complete: bool = True) -> Any:
    """The axes of the figure of the key w, or None."""
    results = [
        make_trial(root, "GTC", 1, 0.1 + k / 100, 0.2, {"w": value, "other": 0 if complete else k})
        for k, value in enumerate(values)
    ]
    content = gather(make_study(["GTC"], seeds=(1,), figures=("hyper_parameters",)), results)
    return next((figure.chart.axes[0] for figure in content.figures if figure.name.endswith("-w")), None)


def test_metric_against_a_hyper_parameter(tmp_path):
    plain = hyper_figure(tmp_path / "a", [0.1, 0.2, 0.3])
    assert (plain.get_xlabel(), plain.get_xscale()) == ("w (no unit)", "linear")
    assert hyper_figure(tmp_path / "b", [1e-4, 1e-3, 1e-2]).get_xscale() == "log"
    names = [label.get_text() for label in hyper_figure(tmp_path / "c", [True, False]).get_xticklabels()]
    assert sorted(names) == ["False", "True"]
    names = [label.get_text() for label in hyper_figure(tmp_path / "d", [0.0, 1e-4, 1e-2]).get_xticklabels()]
    assert names == ["0", "0.0001", "0.01"], "0 beside decades: one place for each value"
    assert hyper_figure(tmp_path / "e", [0.5]) is None
    joined, apart = (hyper_figure(tmp_path / n, [0.1, 0.2, 0.3], whole) for n, whole in (("f", True), ("g", False)))
    assert joined.lines[0].get_linestyle() == "-"
    assert apart.lines[0].get_linestyle() == "None", "points that differ in other keys too are not joined"
    assert len(apart.lines[0].get_xdata()) == 3


def test_metric_against_the_share_that_is_missing(tmp_path):
    both = [{"visual": share, "textual": share} for share in (0.8, 0.4)]
    shares = [{}, *both, {"visual": 0.4}, {"visual": 0.5, "textual": 0.6}]
    settings = {f"GTC {k}": {"missing_share": share} for k, share in enumerate(shares)}
    settings |= {"other": {"tc_weight": 1.0}, "other half": {"tc_weight": 1.0, "missing_share": {"visual": 0.5}}}
    settings |= {"alone": {"tc_weight": 2.0, "missing_share": {"visual": 0.5}}}
    study = make_study(list(settings), seeds=(1,), metrics=("recall@20",), figures=("missing",))
    entries = tuple(dataclasses.replace(entry, settings=settings[entry.label]) for entry in study.entries)
    results = [make_trial(tmp_path, label, 1, 0.5, 0.1 + k / 100) for k, label in enumerate(settings)]
    (figure,) = gather(dataclasses.replace(study, entries=entries), results).figures
    assert figure.name == "missing-demo-recall_20"
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.chart.axes[0].lines}
    assert lines == {
        "GTC 0, textual + visual": pytest.approx([0.1, 0.12, 0.11]),  # by share, not as they come
        "GTC 0, visual": pytest.approx([0.1, 0.13]),
        "other": pytest.approx([0.15, 0.16]),
    }, "entries with several shares, or without another share beside them, have no place"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & $3_#{x}", r"50\% \& \$3\_\#\{x\}"),
        ("a\\b~c^d", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"),
        ("<p> | ±\n\N{EN DASH}", r"\textless{}p\textgreater{} \textbar{} $\pm$ --"),
        ("Müller λ", "Müller ?"),
    ],
)
def test_latex_escapes(text, expected):
    assert escape(text) == expected


def test_latex_is_a_booktabs_table_with_the_data_sets_as_blocks(full):
    folder, study, _ = full
    text = (folder / "main.tex").read_text()
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, len(study.datasets), 1]
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + len(study.datasets) * len(METRICS)
    columns = {len(re.findall(r"(?<!\\)&", line)) for line in body}
    assert columns == {2 + len(study.entries)}
    assert body[1].startswith(r"demo & Recall@10 & ")
    assert body[1 + len(METRICS)].startswith(r"baby\_x & ")
    assert text.count(r"\textbf{") == text.count(r"\underline{") == len(study.datasets) * len(METRICS)
    assert r"{\tiny$\pm$0." in text
    assert text.index(r"\caption{") < text.index(r"\label{tab:toy}") < text.index(r"\begin{tabular}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(full, tmp_path):
    folder, _, _ = full
    shutil.copy(folder / "main.tex", tmp_path)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:]
    assert "Overfull" not in found.stdout
    assert (tmp_path / "main.pdf").stat().st_size > 10_000


def test_content_is_the_same_each_time(tmp_path):
    study, results = two_entries(tmp_path)
    study = dataclasses.replace(study, report=dataclasses.replace(study.report, figures=("ablation", "cost")))
    contents: list[Content] = [gather(study, results) for _ in range(2)]
    assert contents[0].figures
    pages = [to_html(content, svgs(content)) for content in contents]
    assert pages[0] == pages[1]
    assert markdown(contents[0]) == markdown(contents[1])
