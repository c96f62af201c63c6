"""The board: what it says of runs, that nothing in them can become a part of the page, and how the page behaves."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_tools import run_here

from study.board.pair_tests import NO_TEST, SCALE
from study.statistics import t_test

METRICS = ("recall@20", "ndcg@20")
HOSTILE = "</script><script>alert(1)</script><!--"


def write_run(
    folder: Path, model: str, rate: float, values: np.ndarray, no_test: bool = False, data: str = "d", **settings: Any
) -> np.ndarray:
    """A run folder; `values` [U, 2] are those of its users, on the split that it was scored on last."""
    folder.mkdir(parents=True)
    known = {"model": model, "dataset": "demo", "seed": 1, "output_dir": "x", "learning_rate": rate, **settings}
    (folder / "config.yaml").write_text(
        "".join(f"{key}: {json.dumps(value)}  # here\n" for key, value in known.items())
    )
    means = dict(zip(METRICS, values.mean(axis=0).tolist(), strict=True))
    found = {"status": "finished", "valid_metric": "recall@20", "valid": means, "test": None if no_test else means}
    (folder / "metrics.json").write_text(json.dumps(found | {"best_epoch": 2, "seconds": 3.5}))
    (folder / "manifest.json").write_text(json.dumps({"hashes": {"train": data, "valid": data, "test": data}}))
    (folder / "history.csv").write_text("epoch,valid_recall@20\n1,0.1\n2,\n3,0.2\n")
    lines = [
        f"{split},{user},{','.join(map(repr, row))}"
        for split in ["valid"] + ["test"] * (not no_test)
        for user, row in enumerate(values.tolist())
    ]
    (folder / "per_user.csv").write_text("\n".join([",".join(["split", "user", *METRICS]), *lines]) + "\n")
    return values


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    draw = lambda shift: np.round(random.random((50, 2)) * 0.2 + shift, 3)  # noqa: E731
    folder = tmp_path / "runs"
    return {
        "a": write_run(folder / "demo/BPR/a-s1", "BPR", 0.1, draw(0.3), n_layers=2),
        "b": write_run(folder / "demo/GTC/b-s1", "GTC", 0.02, draw(0.29), n_layers=HOSTILE),
        "c": write_run(folder / "demo/GTC/c-s1", "GTC", 0.003, draw(0.1), no_test=True),
        "d": write_run(folder / "demo/GTC/d-s1", "GTC", 0.02, draw(0.2), data="other", n_layers=2),
    }


def board(tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """The page over the runs of the fixture, and its data."""
    done = run_here("board", tmp_path / "runs", "--output", tmp_path / "board.html")
    assert (done.code, done.out.splitlines()[-1]) == (0, f"4 runs; open {tmp_path / 'board.html'}"), done.err
    page = (tmp_path / "board.html").read_text()
    (data,) = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)
    return page, json.loads(data)


def test_the_page_holds_results_and_the_tests_of_all_pairs_that_can_be_tested(tmp_path, runs):
    _, data = board(tmp_path)
    assert data["runs"] == ["runs/demo/BPR/a-s1", "runs/demo/GTC/b-s1", "runs/demo/GTC/c-s1", "runs/demo/GTC/d-s1"]
    assert data["keys"]["learning_rate"] == {"values": [0.1, 0.02, 0.003], "of": [0, 1, 2, 1]}
    assert data["keys"]["n_layers"]["of"] == [0, 1, -1, 0]
    assert not {"output_dir", "status"} & set(data["keys"])
    assert data["test"][2] is None
    assert data["valid"][2] == pytest.approx(runs["c"].mean(axis=0), rel=1e-5)
    assert data["curves"][0] == [[1, 3], [0.1, 0.2]]
    (tests,) = data["tests"]  # one run has no test, another other data
    assert (tests["split"], tests["users"], tests["runs"]) == ("test", 50, [0, 1])
    for column, metric in enumerate(METRICS):
        (level,) = np.frombuffer(base64.b64decode(tests["p"][metric]), "<u2")
        expected = t_test(runs["a"][:, column] - runs["b"][:, column])
        assert level != NO_TEST
        assert 10 ** (-int(level) / SCALE) == pytest.approx(expected, rel=2e-3)


def test_pairs_are_stored_in_order_and_equal_runs_have_no_p_value(tmp_path):
    random = np.random.default_rng(1)
    values = [random.random((30, 2)).round(3) for _ in range(3)]
    for name, mine in zip("abcd", [*values, values[0]], strict=True):
        write_run(tmp_path / "runs" / name, "GTC", 0.1, mine)
    _, data = board(tmp_path)
    levels = np.frombuffer(base64.b64decode(data["tests"][0]["p"]["recall@20"]), "<u2")
    all_of = [*values, values[0]]
    expected = [t_test(all_of[i][:, 0] - all_of[j][:, 0]) for i in range(4) for j in range(i + 1, 4)]
    found = [None if level == NO_TEST else 10 ** (-int(level) / SCALE) for level in levels]
    assert found == [p if p is None else pytest.approx(p, rel=2e-3) for p in expected]
    assert found[2] is None


def test_nothing_in_a_run_becomes_a_part_of_the_page(tmp_path, runs):
    (tmp_path / "runs/demo/GTC/b-s1").rename(tmp_path / "runs/demo/GTC/<script>alert(2)<")
    page, data = board(tmp_path)
    assert HOSTILE in data["keys"]["n_layers"]["values"]
    assert len(re.findall(r"<script|</script|<!--", page)) == 4
    assert "innerHTML" not in page
    assert re.search(r"default-src 'none'; .*script-src 'sha256-[\w+/=]{44}'\">", page)


def test_mistakes_are_one_line_and_broken_folders_are_left_out(tmp_path, runs):
    assert run_here("board", tmp_path / "none").err.endswith("runs are below the --output_dir of training\n")
    (tmp_path / "empty").mkdir()
    nothing = run_here("board", tmp_path / "empty", "--output", tmp_path / "board.html")
    assert (nothing.code, nothing.err) == (2, f"error: board: no run folder (with config.yaml) in {tmp_path}/empty\n")
    write_run(tmp_path / "runs/broken", "GTC", 0.1, runs["a"])
    (tmp_path / "runs/broken/config.yaml").write_text("model: [\n")
    (tmp_path / "runs/demo/GTC/d-s1/metrics.json").write_text("{")
    (tmp_path / "runs/demo/GTC/c-s1/per_user.csv").write_text("x")
    _, data = board(tmp_path)
    assert len(data["left_out"]) == 1
    assert "broken/config.yaml" in data["left_out"][0]
    assert data["keys"]["status"]["values"] == ["finished", "open"]


@pytest.mark.skipif(not shutil.which("node"), reason="Node is not installed: the script of the page is not run")
def test_the_page_sorts_filters_and_compares(tmp_path, runs):
    board(tmp_path)
    command = ["node", str(Path(__file__).with_name("page_in_node.js")), str(tmp_path / "board.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, rising, falling, one_model, one_rate, chosen = json.loads(done.stdout)
    names = [name for name, _ in first["head"]]
    assert names[:6] == ["choose", "dataset", "model", "seed", "learning_rate", "n_layers"]
    assert names[6:] == ["valid recall@20", "test recall@20", "best epoch", "seconds", "folder"]

    def rates(view: dict[str, Any]) -> list[str]:
        return [row[names.index("learning_rate")] for row in view["body"]]

    assert rates(first) == ["0.1", "0.02", "0.02", "0.003"]  # by validation, best first
    assert ["valid recall@20", "descending"] in first["head"]
    assert rates(rising) == ["0.003", "0.02", "0.02", "0.1"]
    assert rising["focus"] == "sort-learning_rate"
    assert [pair for pair in rising["head"] if pair[1]] == [["learning_rate", "ascending"]]
    assert rates(falling) == ["0.1", "0.02", "0.02", "0.003"]
    assert [row[names.index("test recall@20")] for row in falling["body"]][-1] == ""  # no_test
    assert (len(one_model["body"]), one_model["count"]) == (1, "1 of 1 runs (4 in all)")
    assert len(one_rate["body"]) == 2
    keys, metrics = chosen["compare"]
    assert ["learning_rate", "0.1", "0.02"] in keys
    assert "paired t-test over 50 users" in chosen["words"]
    p = t_test(runs["a"][:, 0] - runs["b"][:, 0])
    assert float(metrics[1][4]) == pytest.approx(p, rel=0.5 if p < 1e-4 else 0.01)
    assert len(chosen["curves"]) == 2
    assert chosen["links"][0] == "./runs/demo/BPR/a-s1"


@pytest.fixture
def tab(tmp_path, runs) -> Iterator[Any]:
    """The board in Chromium; what it asks of a network and what goes wrong in its script fail the test at the end."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: no browser opens the page"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("Chromium is not installed: no browser opens the page")
    board(tmp_path)
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[*flags, "--disable-component-update"])
        page = browser.new_page()
        asked, wrong = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        page.goto((tmp_path / "board.html").as_uri())
        yield page
        browser.close()
    assert asked == [(tmp_path / "board.html").as_uri()]
    assert wrong == []


def column(tab: Any, name: str) -> list[str]:
    """The texts of a column of the table of runs, from top to bottom."""
    at = [head.removesuffix(" ") for head in tab.locator("#head th").all_inner_texts()].index(name) + 1
    return tab.locator(f"#body td:nth-child({at})").all_inner_texts()


def test_in_a_browser_the_board_sorts_filters_and_compares(tab):
    assert column(tab, "learning_rate") == ["0.1", "0.02", "0.02", "0.003"]
    tab.get_by_role("button", name="learning_rate").click()
    assert column(tab, "learning_rate") == ["0.003", "0.02", "0.02", "0.1"]
    tab.get_by_label("model").select_option("GTC")
    tab.get_by_label("key").select_option("learning_rate")
    tab.get_by_label("its value").select_option("0.02")
    assert column(tab, "folder") == ["runs/demo/GTC/b-s1", "runs/demo/GTC/d-s1"]  # no such column: by validation again
    tab.get_by_role("button", name="remove the filter learning_rate = 0.02").click()
    tab.get_by_label("model").select_option("all")
    tab.get_by_label("words").fill("n_layers=2 a-s1")
    assert column(tab, "folder") == ["runs/demo/BPR/a-s1"]
    tab.get_by_label("words").fill("")
    tab.get_by_label("choose BPR on demo, a-s1").check()
    tab.get_by_label("choose GTC on demo, b-s1").check()
    assert tab.locator("#curves path").count() == 2
    assert tab.locator("#compare tr", has_text="learning_rate").inner_text().split() == ["learning_rate", "0.1", "0.02"]
    assert "paired t-test over 50 users" in tab.locator("#compare").inner_text()
    tab.get_by_role("button", name="leave out BPR on demo, a-s1").click()
    assert not tab.get_by_label("choose BPR on demo, a-s1").is_checked()
    assert tab.locator("#curves path").count() == 1


def test_in_a_browser_the_board_is_used_by_keyboard_alone(tab):
    def to(selector: str) -> None:
        for _ in range(40):
            tab.keyboard.press("Tab")
            if tab.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"{selector}: nobody sees where the keyboard is"
                return
        raise AssertionError(f"{selector} is not reached by Tab")

    to("#model")
    tab.keyboard.type("GTC")
    assert set(column(tab, "model")) == {"GTC"}
    to("#words")
    tab.keyboard.type("seed=1")
    to("#sort-learning_rate")
    tab.keyboard.press("Enter")
    tab.keyboard.press("Enter")
    assert column(tab, "learning_rate") == ["0.02", "0.02", "0.003"]
    to("#body tr:nth-child(1) input")
    tab.keyboard.press("Space")
    to("#body tr:nth-child(2) input")
    tab.keyboard.press("Space")
    assert tab.locator("#legend li").count() == 2
    assert tab.locator("#compare table").count() == 2
    to("#legend button")
    tab.keyboard.press("Enter")
    assert tab.locator("#legend li").count() == 1


def test_in_a_browser_the_board_fits_a_phone(tab):
    tab.set_viewport_size({"width": 360, "height": 740})
    for box in tab.locator("#body input").all()[:2]:
        box.check()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    for selector in ("#model", "#words", "#legend", "#curves", "#compare"):
        place = tab.locator(selector).bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= 360, selector
    table = tab.locator(".wide").first
    assert table.evaluate("(one) => one.scrollWidth > one.clientWidth"), "the table scrolls by itself"
