"""Steps run when something they depend on is other than before, and only then."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import problems_of

from prepare.file_tools import sha256_of
from prepare.pipeline import MARK, SETTLED, WORK, Hashes, Pipeline, Step
from utils.files import atomic_file


class Chain:
    """Two steps, source -> middle.txt -> end.txt, in a data set's folder; `ran` says what was run, since last asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder / "set", folder / "source.txt"
        self.middle, self.end = self.folder / WORK / "middle.txt", self.folder / "end.txt"
        self.source.write_text("a b c")
        self.k, self.version = 2, 1
        self.done: list[str] = []
        self.said: list[str] = []

    def steps(self) -> list[Step]:
        return [
            Step(
                "first", self.step("first", self.source, self.middle), [self.source], [self.middle], (), {"k": self.k}
            ),
            Step("second", self.step("second", self.middle, self.end), [self.middle], [self.end], version=self.version),
        ]

    def step(self, name: str, source: Path, target: Path) -> Callable[..., dict[str, Any]]:
        def run(progress: Callable[[float, float], None]) -> dict[str, Any]:
            progress(1, 2)
            self.done.append(name)
            words = source.read_text().split()[: self.k]
            with atomic_file(target) as file:
                file.write(" ".join(words).encode())
            return {"words": len(words)}

        return run

    def run(self) -> list[str]:
        self.done = []
        with Pipeline(self.folder, quiet=True) as pipeline:
            self.records = pipeline.run(self.steps(), self.said.append)
        return self.done

    def plan(self) -> dict[str, str]:
        with Pipeline(self.folder, dry=True) as pipeline:
            return {step.name: reason for step, reason in pipeline.plan(self.steps())}


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_what_is_done_is_not_done_again(chain):
    assert chain.run() == ["first", "second"]
    assert chain.end.read_text() == "a b"
    assert chain.records["second"]["report"] == {"words": 2}
    assert chain.records["first"]["inputs"] == [["source.txt", sha256_of(chain.source)]]
    assert chain.run() == []
    assert chain.said[-2:] == ["first: unchanged", "second: unchanged"]


def test_a_change_of_the_input_runs_it_and_what_depends_on_it(chain):
    chain.run()
    chain.source.write_text("x y z")
    assert chain.plan() == {"first": "inputs changed: source.txt", "second": "if first makes something new"}
    assert chain.run() == ["first", "second"]
    assert chain.end.read_text() == "x y"


def test_a_change_that_makes_no_difference_stops_there(chain):
    chain.run()
    chain.source.write_text("a b d")
    assert chain.run() == ["first"]


def test_neither_the_place_nor_the_time_of_an_input_matters(chain, tmp_path):
    chain.run()
    os.utime(chain.source, (1, 1))
    assert chain.run() == []
    (tmp_path / "elsewhere").mkdir()
    chain.source = chain.source.rename(tmp_path / "elsewhere" / chain.source.name)
    assert chain.run() == []


@pytest.mark.parametrize(
    ("change", "reason", "runs"),
    [
        (lambda c: setattr(c, "k", 3), {"first": "parameters changed: k 2 -> 3"}, ["first", "second"]),
        (lambda c: setattr(c, "version", 2), {"second": "its code changed (version 1 -> 2)"}, ["second"]),
        (lambda c: c.end.unlink(), {"second": "output missing: end.txt"}, ["second"]),
        (lambda c: c.end.write_text("mine"), {"second": "output changed: end.txt"}, ["second"]),
        (lambda c: c.middle.write_text("q"), {"first": "output changed: middle.txt"}, ["first"]),
        (lambda c: (c.folder / WORK / "steps" / "second.json").write_text("{"), {"second": "not done yet"}, ["second"]),
    ],
)
def test_what_makes_a_step_run_is_said(chain, change, reason, runs):
    chain.run()
    change(chain)
    plan = chain.plan()
    assert {name: plan[name] for name in reason} == reason
    assert chain.run() == runs
    assert chain.end.read_text() == ("a b c" if chain.k == 3 else "a b")
    assert chain.run() == []


def test_a_dry_run_writes_nothing(chain):
    assert chain.plan() == {"first": "not done yet", "second": "not done yet"}
    assert not chain.folder.exists()


def test_a_step_that_fails_leaves_no_record_and_no_file(chain):
    def fail(progress: object) -> dict[str, Any]:
        with atomic_file(chain.end) as file:
            file.write(b"half")
            raise ValueError("stop")

    with Pipeline(chain.folder, quiet=True) as pipeline, pytest.raises(ValueError, match="stop"):
        pipeline.run([Step("second", fail, [chain.source], [chain.end])], chain.said.append)
    assert [path.name for path in chain.folder.iterdir()] == [WORK]
    assert chain.plan()["second"] == "not done yet"


def test_what_no_step_makes_any_more_is_taken_away_unless_somebody_changed_it(chain):
    chain.run()
    first, _ = chain.steps()
    for text, there in (("", False), ("mine", True)):
        if text:
            chain.run()
            chain.end.write_text(text)
        with Pipeline(chain.folder, quiet=True) as pipeline:
            pipeline.run([first], chain.said.append)
        assert chain.end.exists() == there
    assert "second: not asked for any more; end.txt removed" in chain.said
    assert "second: not asked for any more; end.txt was changed since and is kept" in chain.said


def test_a_missing_input_is_the_users_to_mend(chain):
    chain.source.unlink()
    assert problems_of(chain.run) == [f"first: there is no {chain.source}"]


def test_two_commands_do_not_share_a_folder(chain):
    with Pipeline(chain.folder, quiet=True):
        (problem,) = problems_of(chain.run)
    assert "another prepare is at work here" in problem
    assert chain.run() == ["first", "second"]
    assert not (chain.folder / WORK / "lock").exists()


@pytest.mark.parametrize("name", ["set.inter", "image_feat.npy", "content.lmdb", "i_id_mapping.csv"])
def test_a_folder_made_otherwise_is_left_alone(chain, name):
    chain.folder.mkdir()
    (chain.folder / name).write_text("precious")
    for call in (chain.run, chain.plan):
        (problem,) = problems_of(call)
        assert f"holds {name}, not made by prepare" in problem
    assert [path.name for path in chain.folder.iterdir()] == [name]


def test_what_a_killed_process_left_is_cleaned_away(chain):
    chain.run()
    for folder in (chain.folder, chain.folder / WORK):
        (folder / ".x.npy.123.tmp").write_text("half")
    chain.run()
    assert not list(chain.folder.rglob("*.tmp"))
    assert json.loads((chain.folder / WORK / MARK).read_text())["dataset"] == "set"


def test_hashes_are_remembered_by_size_and_time_but_not_of_fresh_files(tmp_path):
    path, store = tmp_path / "x", tmp_path / "hashes.json"
    path.write_text("one")
    hashes = Hashes(store)
    assert hashes.of(path) == sha256_of(path)
    assert hashes.known == {}  # it may change again within the same tick of the clock
    old = path.stat().st_mtime_ns - int(10 * SETTLED * 1e9)
    os.utime(path, ns=(old, old))
    first = hashes.of(path)
    hashes.save()
    path.write_text("two")
    os.utime(path, ns=(old, old))
    assert Hashes(store).of(path) == first  # as far as it can tell
    os.utime(path, ns=(old + 1, old + 1))
    assert Hashes(store).of(path) == sha256_of(path) != first
    assert Hashes(store).of(tmp_path / "none") is None


def test_the_hash_of_a_folder_is_that_of_names_and_contents(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_text("1")
    before = Hashes().of(folder)
    (folder / "a.png").rename(folder / "b.png")
    assert Hashes().of(folder) != before
    (folder / "b.png").rename(folder / "a.png")
    assert Hashes().of(folder) == before
    (folder / "a.png").write_text("2")
    assert Hashes().of(folder) != before
