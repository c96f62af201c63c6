"""Several runs in a row: skip what is finished, show progress, end with tables."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import nn

from common.scorers import Scorers
from common.trainer import Progress
from runner.comparison import Row, footnotes, summarize, to_cells, to_markdown, to_records, to_text
from runner.extras import tuned
from runner.quick_start import (
    DatasetShelf,
    Result,
    build_model,
    check_resumable,
    cutoffs,
    oracle_metrics,
    pick_device,
    refits,
    run,
    with_modalities,
)
from runner.registry import class_of, code_of, is_older
from utils.config.configuration import Config
from utils.config.valid_metric import is_sum, weights_of
from utils.data.id_mapping import original_ids
from utils.errors import UserError
from utils.files import make_folder, write_bytes, write_csv
from utils.memory import check_fits
from utils.progress import ProgressBar
from utils.runs.run_folder import RunFolder, folders_text, identity
from utils.runs.tracking import library


def epoch_progress(bar: ProgressBar) -> Progress:
    """What a trainer calls: moves the bar to `epoch` plus `share` of the next one."""

    def show(epoch: int, share: float, shown: Mapping[str, float]) -> None:
        title = f"{bar.title} epoch {epoch}/{bar.total:g}" if shown else ""
        bar(epoch + share, shown={name: f"{value:.4f}" for name, value in shown.items()}, title=title)

    return show


def run_all(configs: Sequence[Config], resume: bool, quiet: bool, rerun_changed: bool = False) -> int:
    """Runs every configuration, prints the tables, and returns the exit code: 1 if a run diverged.

    Args:
        configs: of each run.
        resume: take finished runs over and continue those that were interrupted.
        quiet: no progress bar.
        rerun_changed: with `resume`, runs of older code are done again.

    Raises:
        UserError: before anything runs, for a data set that is missing or wrong.
    """
    shelf = DatasetShelf()
    code = functools.cache(code_of)
    earlier = [_earlier(config, rerun_changed, code) if resume else None for config in configs]
    check_all(configs, shelf, earlier)
    if not resume:
        _say_finished(configs)
    older: Counter[str] = Counter()
    results: list[Result] = []
    oracles: dict[str, dict[str, float]] = {}
    for number, config in enumerate(configs, 1):
        dataset = shelf.get(config, class_of(config).needs_features)
        title = f"{config.model} on {config.dataset}, seed {config['seed']}"
        varied = ", ".join(f"{axis} {config[axis]}" for axis in config.axes if axis != "seed")
        head = f"[{number}/{len(configs)}] {title}" + (f", {varied}" if varied else "")
        folder = earlier[number - 1]
        metrics = folder.metrics() if folder else None
        if folder and metrics:
            print(f"{head}: {metrics['status']} before, in {folder.path}")
            older[config.model] += is_older(folder.manifest(), code)
            folder.tidy()
            results.append(Result(config, metrics, folder.path))
        else:
            going_on = folder is not None
            folder = folder or RunFolder.new(config)
            print(f"{head}: {'continues in' if going_on else 'in'} {folder.path}", flush=True)
            with ProgressBar(title, quiet, config["epochs"]) as bar:
                result = run(config, folder, dataset, epoch_progress(bar), resume=going_on)
            results.append(result)
            print(f"  {_outcome(result)}", flush=True)
            if "note" in result.metrics:
                print(f"  note: {result.metrics['note']}", flush=True)
        if config.dataset not in oracles and (oracle := oracle_metrics(config, dataset)):
            oracles[config.dataset] = oracle
    _report(configs, results, summarize(results, oracles), [*older_notes(older, "run")])
    return 1 if any(result.metrics["status"] != "finished" for result in results) else 0


def older_notes(counts: Mapping[str, int], what: str) -> list[str]:
    """A sentence for each model that has results of older code; `what` they are: runs or trials."""
    return [
        f"{name}: {n} {what}{' is' if n == 1 else 's are'} of older code; --rerun_changed trains "
        f"{'it' if n == 1 else 'them'} again"
        for name, n in counts.items()
        if n
    ]


def _earlier(config: Config, rerun_changed: bool, code: Callable[..., Mapping[str, str]]) -> RunFolder | None:
    """The newest run with these settings that `--resume` goes on from."""
    folder = RunFolder.latest(config)
    if folder and rerun_changed and folder.file("manifest.json").is_file() and is_older(folder.manifest(), code):
        return None
    return folder


def _say_finished(configs: Sequence[Config]) -> None:
    """Says which runs of a command are finished already and will be done again."""
    found = [folder for config in configs if (folder := RunFolder.latest(config)) and folder.metrics()]
    if found:
        what = "this run is" if len(configs) == 1 else f"{len(found)} of these {len(configs)} runs are"
        where = found[0].path if len(found) == 1 else f"{found[0].path} and others"
        print(f"note: {what} finished already ({where}); --resume shows that result in place of training again")


def check_all(
    configs: Sequence[Config],
    shelf: DatasetShelf,
    earlier: Sequence[RunFolder | None] = (),
    say: Callable[[str], object] = print,
) -> None:
    """Reads every data set once before the first run, says what is in it, and finds all mistakes at once.

    Args:
        configs: of each run.
        shelf: keeps the data set of the first run.
        earlier: the run that each goes on from, if any; empty: none does.
        say: takes each line.
    """
    problems: list[str] = []
    printed: set[str] = set()
    stale: set[str] = set()
    built: set[str] = set()
    folders = earlier or [None] * len(configs)
    for config, folder in reversed([*zip(configs, folders, strict=True)]):  # the first run's data set is kept
        try:
            device = pick_device(config["device"])
            if config["tracker"]:
                library(config["tracker"])
            dataset = shelf.get(config, class_of(config).needs_features)
            needed = class_of(config).memory_needed(config, dataset) | Scorers.memory_needed(config, dataset)
            check_fits(config.model, needed, device)
            if config["initialization"] == "spectral" and (key := identity(config)) not in built:
                built.add(key)
                build_model(config, dataset, device)  # a model without the tables is refused before anything is trained
            kept, too_large = cutoffs(config, dataset), [k for k in config["topk"] if k > dataset.n_items]
            picks = {int(name.partition("@")[2]) for name in weights_of(config["valid_metric"])}
            if too_large and (set(too_large) & set(kept) or not picks <= set(kept)):
                problems.append(
                    f"topk: {max(too_large)} is more than the {dataset.n_items} items of '{config.dataset}'"
                )
            if refits(config) and dataset.user_graph is not None:
                problems.append(
                    "refit: user_graph_file holds counts of the training split alone; leave one of both out"
                )
            with_modalities(config, dataset)
            if "signal" in (config["group_by"] or ()) and dataset.truth is None:
                problems.append(f"group_by: signal is known of generated data sets only, not of '{config.dataset}'")
            problems += [
                f"modalities: '{name}' cannot name a modality (letters, digits and _, and no word like items or type); "
                "give its file another name under modalities"
                for name in dataset.features
                if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or hasattr(nn.ModuleDict, name)
            ]
            if (
                config["save_topk"] or config["save_per_item"]
            ):  # read now, so that a mistake in a mapping file costs no training
                original_ids(config, config["user_id_field"], dataset.n_users)
                original_ids(config, config["item_id_field"], dataset.n_items)
            # Of a grid with many runs that cannot be continued, one is named.
            if folder and config.dataset not in stale:
                stale.add(config.dataset)
                check_resumable(folder, dataset)
                stale.remove(config.dataset)
        except UserError as error:
            problems += error.problems
            continue
        notes = [*class_of(config).notes_on(config, dataset), *_without_effect(config)]
        if too_large:
            left = ", ".join(map(str, too_large))
            notes.append(f"topk: {left} left out of the default: '{config.dataset}' has {dataset.n_items} items")
        for line in [*dataset.statistics(), *(f"warning: {warning}" for warning in [*dataset.warnings, *notes])]:
            if line not in printed:
                printed.add(line)
                say(line)
    if problems:
        raise UserError(*dict.fromkeys(problems))


def _without_effect(config: Config) -> list[str]:
    """What a run is asked for and cannot give, a line each."""
    lines = []
    asked = [
        key
        for key in ("group_by", "beyond_accuracy", "save_topk", "save_per_item", "refit")
        if config["no_test"] and config[key]
    ]
    if asked:
        lines.append(f"no_test: {', '.join(asked)} {'is' if len(asked) == 1 else 'are'} of the test split and left out")
    if (config["training_neg_sample_num"], config["neg_sampling"]) != (1, "uniform") and not (
        class_of(config).needs_negatives and class_of(config).needs_training
    ):
        lines.append(
            f"{config.model} takes no sampled negatives: training_neg_sample_num and neg_sampling change nothing"
        )
    return lines


def _outcome(result: Result) -> str:
    metrics = result.metrics
    if metrics["status"] != "finished":
        return f"diverged: {metrics['error']}; what was computed is in {result.folder}"
    name = metrics["valid_metric"]
    calibrated = f"; {tuned([metrics['calibration']])}" if metrics.get("calibration") else ""
    test = f"test {name} {metrics['test'][name]:.4f}" if metrics["test"] else "no test"
    if refit := metrics.get("refit"):
        epochs = f"{refit['epochs']} epoch{'s' * (refit['epochs'] > 1)}"
        test = (
            f"then {epochs} on train and validation ({refit['interactions']:,} interactions), without a validation of "
            f"its own: {test}"
        )
    return (
        f"best epoch {metrics['best_epoch']} of {metrics['epochs']}: validation {name} {metrics['valid'][name]:.4f}, "
        f"{test} ({metrics['seconds']:.1f} s){calibrated}"
    )


def _report(configs: Sequence[Config], results: Sequence[Result], rows: Sequence[Row], stale: Sequence[str]) -> None:
    if len(results) == 1 and results[0].metrics["status"] != "finished":
        return
    print()
    if len(results) == 1:
        _print_single(results[0])
    cells = to_cells(rows)
    print(to_text(cells))
    notes = [*footnotes(rows), *stale]
    if any(" *" in line[1] for line in cells):
        notes.insert(0, "* picked by validation among the combinations of its model")
    for note in notes:
        print(note)
    if len(results) > 1:
        for row in rows if any(" *" in line[1] for line in cells) else ():
            if row.selected:
                point = "".join(f", {axis} {value}" for axis, value in row.settings.items())
                print(f"picked: {row.model} on {row.dataset}{point}, in {folders_text(row.folders)}")
        words = "-".join(dict.fromkeys(config.model for config in configs))
        sets = "-".join(dict.fromkeys(config.dataset for config in configs))
        # Named after the run folders, so that the same command run again leaves the earlier table alone.
        names = " ".join("/".join(result.folder.parts[-3:]) for result in results)
        key = hashlib.sha256(names.encode()).hexdigest()[:8]
        folder = Path(configs[0]["output_dir"]).expanduser() / "comparisons" / f"{words[:60]}-{sets[:40]}-{key}"
        make_folder(folder)
        write_csv(folder / "comparison.csv", to_records(rows))
        write_bytes(folder / "comparison.md", to_markdown(cells, notes).encode())
        print(f"written to {folder}/comparison.csv and comparison.md")


def _print_single(result: Result) -> None:
    split = "test" if result.metrics["test"] else "valid"
    means = {name: value for name, value in result.metrics[split].items() if not is_sum(name)}
    columns = sorted({int(name.partition("@")[2]) for name in means})
    names = list(dict.fromkeys(name.partition("@")[0] for name in means))
    table = [[split, *(f"@{k}" for k in columns)]]
    table += [[name, *(f"{means[f'{name}@{k}']:.4f}" for k in columns)] for name in names]
    print(to_text(table) + "\n")
    for grouping, groups in result.metrics.get("groups", {}).items():
        shown = [m for m in ("recall@20", "ndcg@20") if any(m in g for g in groups.values())]
        shown = shown or [m for m in next(iter(groups.values())) if "@" in m][:2]
        table = [[grouping, "users", *shown]]
        table += [
            [name, f"{group['n_users']:,}", *(f"{group[m]:.4f}" if m in group else "" for m in shown)]
            for name, group in groups.items()
        ]
        print(to_text(table) + "\n")
