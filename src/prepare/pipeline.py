"""Steps that are done once: skipped while what they read, their parameters and what they made are unchanged.

The record of a step (`.prepare/NAME.json`) holds SHA-256 of inputs and outputs, parameters and the report of counts. It is
written after the outputs, which are written whole or not at all: a step that was killed runs again, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from prepare.file_tools import make_named_folder, read_json, sha256_of
from utils.errors import UserError
from utils.files import TEMPORARY, make_folder, take_lock, write_json
from utils.progress import ProgressBar

WORK = ".prepare"
MARK = "prepare.json"  # marks a folder as made here
MADE = ("*_feat.npy", "*_mask.npy", "*mapping*.csv", "content.lmdb", "manifest.json")  # and NAME.inter
SETTLED = 2.0  # seconds: a file changed later than that before it is hashed may change again within one clock tick


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: of its record.
        run: does it, and returns its report (JSON).
        inputs: files (or folders of files) that it reads.
        outputs: files that it makes.
        optional: files that it makes or takes away, as the data have it.
        parameters: whatever else its outputs depend on (JSON).
        version: raised when its code comes to make other bytes.
    """

    name: str
    run: Callable[[ProgressBar], Mapping[str, Any]]
    inputs: Sequence[Path] = ()
    outputs: Sequence[Path] = ()
    optional: Sequence[Path] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1


class Hashes:
    """SHA-256 of files, remembered by path, size and time of change."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.known: dict[str, list[Any]] = {}
        content = read_json(path) if path else None
        if content is not None:
            self.known = {name: entry for name, entry in content.items() if isinstance(entry, list) and len(entry) == 3}

    def of(self, path: Path) -> str | None:
        """Of a file, or of the names and contents of a folder's files; None where there is nothing."""
        if path.is_dir():
            digest = hashlib.sha256()
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                line = f"{file.relative_to(path).as_posix()}\0{self.of(file)}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
            return digest.hexdigest()
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        key, stamp = str(path.absolute()), [status.st_size, status.st_mtime_ns]
        if self.known.get(key, [])[:2] == stamp:
            return str(self.known[key][2])
        found = sha256_of(path)
        if abs(time.time() - status.st_mtime) > SETTLED:
            self.known[key] = [*stamp, found]
        return found

    def save(self) -> None:
        """Writes what is known, so that large files are not read again."""
        if self.path:
            write_json(self.path, self.known)


class Pipeline:
    """The steps of one data set's folder, which is locked meanwhile (`with Pipeline(...) as pipeline`).

    Args:
        folder: of the data set; made if it is missing.
        quiet: no progress bars.
        dry: nothing is written, and nothing locked.
    """

    def __init__(self, folder: Path, quiet: bool = False, dry: bool = False) -> None:
        self.folder, self.work, self.quiet, self.dry = folder, folder / WORK, quiet, dry
        self.hashes = Hashes(self.work / "hashes.json")
        self._lock: IO[str] | None = None

    def __enter__(self) -> Pipeline:
        made_here = (self.work / MARK).is_file()
        if not made_here and self.folder.is_dir():
            others = [f"{self.folder.name}.inter", *MADE]
            files = sorted(path.name for pattern in others for path in self.folder.glob(pattern))
            if files:
                raise UserError(
                    f"{self.folder}: holds {', '.join(files[:5])}, not made by prepare; nothing was changed: choose another "
                    "name or --data_path"
                )
        if self.dry:
            return self
        make_named_folder(self.work, "--data_path")
        self._lock = take_lock(self.work / "lock")
        if self._lock is None:
            raise UserError(f"{self.folder}: another prepare is at work here; wait for it or stop it first")
        for place in (self.folder, self.work, self.work / "steps"):  # of a process that was killed while it wrote
            for left in place.glob(f".*{TEMPORARY}"):
                left.unlink(missing_ok=True)
        if not made_here:
            write_json(self.work / MARK, {"made_by": "main.py prepare", "dataset": self.folder.name})
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self.hashes.save()
            (self.work / "lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def record_of(self, name: str) -> dict[str, Any] | None:
        """The record of a step, if it was ever finished."""
        record = read_json(self.work / "steps" / f"{name}.json")
        return record if record is not None and {"inputs", "outputs", "parameters", "report"} <= record.keys() else None

    def why(self, step: Step) -> str:
        """Why a step has to run; an empty string where it has not."""
        record = self.record_of(step.name)
        if record is None:
            return "not done yet"
        if record.get("version") != step.version:
            return f"its code changed (version {record.get('version')} -> {step.version})"
        now, before = json.loads(json.dumps(step.parameters)), record["parameters"]
        changed = [key for key in {**before, **now} if now.get(key) != before.get(key)]
        if changed:
            changes = (f"{key} {_short(before.get(key))} -> {_short(now.get(key))}" for key in changed)
            return f"parameters changed: {', '.join(changes)}"
        named = self._named(step.inputs)
        if named != record["inputs"]:
            changed = [name for name, digest in named if [name, digest] not in record["inputs"]]
            return f"inputs changed: {', '.join(changed or ['fewer'])}"
        for path in (*step.outputs, *step.optional):
            digest, then = self.hashes.of(path), record["outputs"].get(path.name)
            if digest != then:
                return f"output {'missing' if digest is None else 'changed'}: {path.name}"
        return ""

    def plan(self, steps: Sequence[Step]) -> list[tuple[Step, str]]:
        """Each step and why it would run; a step that reads what another would make again depends on that."""
        made: dict[Path, str] = {}
        planned = []
        for step in steps:
            before = sorted({made[path] for path in step.inputs if path in made})
            reason = self.why(step)
            # What is not made yet is no change of its own.
            if before and (not reason or reason.startswith("inputs changed")):
                reason = f"if {', '.join(before)} makes something new"
            if reason:
                made |= {path: step.name for path in (*step.outputs, *step.optional)}
            planned.append((step, reason))
        return planned

    def run(self, steps: Sequence[Step], say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
        """Runs the steps that have to run, removes outputs of steps that are no longer asked for; returns all records."""
        self._retire(steps, say)
        make_folder(self.work / "steps")
        records = {}
        for step in steps:
            reason = self.why(step)
            if not reason:
                say(f"{step.name}: unchanged")
            else:
                say(f"{step.name}: {reason}")
                self._run(step)
                self.hashes.save()
            record = self.record_of(step.name)
            assert record is not None
            records[step.name] = record
        return records

    def _run(self, step: Step) -> None:
        # Taken before it reads them: if somebody changes one meanwhile, the next run sees another.
        inputs = self._named(step.inputs)
        missing = [str(path) for path, (_, digest) in zip(step.inputs, inputs, strict=True) if digest is None]
        if missing:
            raise UserError(*(f"{step.name}: there is no {path}" for path in missing))
        progress = ProgressBar(step.name, self.quiet)
        try:
            report = step.run(progress)
        finally:
            progress.close()
        outputs = {path.name: self.hashes.of(path) for path in (*step.outputs, *step.optional)}
        content = {"step": step.name, "version": step.version, "parameters": dict(step.parameters)}
        content |= {"inputs": inputs, "outputs": outputs, "report": report}
        write_json(self.work / "steps" / f"{step.name}.json", content)

    def _named(self, paths: Sequence[Path]) -> list[list[str | None]]:
        """Names and hashes: where the files lie does not matter."""
        return [[path.name, self.hashes.of(path)] for path in paths]

    def _retire(self, steps: Sequence[Step], say: Callable[[str], None]) -> None:
        names = {step.name for step in steps}
        wanted = {path.name for step in steps for path in (*step.outputs, *step.optional)}
        for path in sorted((self.work / "steps").glob("*.json")):
            record = self.record_of(path.stem)
            if path.stem in names or record is None:
                continue
            for name, digest in record["outputs"].items():
                for place in (self.folder / name, self.work / name):
                    if digest is None or name in wanted or not place.is_file():
                        continue
                    if self.hashes.of(place) == digest:
                        place.unlink()
                        say(f"{path.stem}: not asked for any more; {name} removed")
                    else:
                        say(f"{path.stem}: not asked for any more; {name} was changed since and is kept")
            path.unlink()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
