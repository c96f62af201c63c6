"""What a model file reads, whether it can run here, and what to do where it cannot: tried on a tiny data set."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from common.trainer import loss_terms, make_optimizer, seed_everything
from mmrec import running
from mmrec.config import MMREC_VALUES, OF_THE_RUN, is_set
from mmrec.foreign import ForeignRecommender, trainer_calls
from mmrec.importing import STAND_IN_PACKAGES
from mmrec.mistakes import HARD_TO_INSTALL, NAMES_OF_PACKAGES, mistakes_of_plugins
from mmrec.plugin import ModelFile, load_class, own_keys, plugin_keys
from mmrec.tree import imports_in, parse_bytes
from utils.config.configuration import Config
from utils.config.request import Request, resolve
from utils.config.schema import keys_of
from utils.config.yaml_files import read_yaml
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset
from utils.data.loading import load_dataset
from utils.data.synthetic import generate, write
from utils.data.synthetic_spec import SyntheticSpec
from utils.errors import UserError

# Features as wide as those of the Amazon data sets, since some files say so in numbers.
TINY = SyntheticSpec(
    n_users=160,
    n_items=120,
    n_interactions=1600,
    feature_dims={"visual": 4096, "textual": 384, "acoustic": 128},
    joint_users=0.0,
    n_joint=0,
)
STEPS = 2
BATCH = 256
Row = tuple[str, str, str, str]  # kind, name, what was found, what to do


@dataclass
class Report:
    """What was found out about a file: rows of a table, and why it cannot run, if so."""

    rows: list[Row] = field(default_factory=list)
    failure: str = ""
    done: list[str] = field(default_factory=list)  # steps that went well

    def text(self) -> str:
        """The table, and a last line that says whether the file runs."""
        header = ("kind", "name", "found", "what to do")
        widths = [max(len(row[place]) for row in [header, *self.rows]) for place in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]).rstrip()
            for row in [header, *self.rows]
        ]
        end = f"does not run: {self.failure}" if self.failure else f"runs: {', '.join(self.done)}"
        return "\n".join([*lines, "", end])


def check_plugin(file: ModelFile, overrides: Mapping[str, Any] | None = None) -> Report:
    """Builds a model on a tiny data set, trains it for two steps and scores, and reports what it reads.

    Args:
        file: the model file.
        overrides: keys from the command line, each a list of values.
    """
    report = Report()
    report.rows += [*_packages(file), *_modules(file)]
    try:
        with mistakes_of_plugins(), tempfile.TemporaryDirectory() as folder:
            cls = load_class(file)
            report.done.append("is imported")
            config = _config(file, Path(folder), overrides or {})
            report.rows += [*_keys(file, config), *_features(file)]
            dataset = load_dataset(config, cls.needs_features)
            _try(cls, config, dataset, report)
    except UserError as error:
        report.failure = "; ".join(error.problems)
    return report


def _try(cls: Any, config: Config, dataset: Dataset, report: Report) -> None:
    device = torch.device("cpu")
    seed_everything(config["seed"])
    model = cls.build(config, dataset, device)
    report.done.append("is built")
    report.rows += [("file", name, what, "") for name, what in _opened().items()]
    if issubclass(cls, ForeignRecommender) and (calls := trainer_calls(cls)):
        report.rows.append(
            ("hook", ", ".join(calls), "called by the trainer of its own tree", "its numbers may differ without")
        )
    if model.needs_training:
        optimizer = make_optimizer(config, model)
        loader = TrainLoader(dataset, BATCH, config["seed"], device, model.needs_negatives, model.batches_by_user)
        model.train()
        model.pre_epoch_processing()
        for step, batch in zip(range(STEPS), loader.epoch(), strict=False):
            model.pre_step_processing(batch)
            _step(model, optimizer, batch, step)
        model.post_epoch_processing()
        report.done.append(f"trains {STEPS} steps")
    users = torch.unique(torch.from_numpy(dataset.splits["valid"].users))
    with model.scoring():
        scores = model.full_sort_predict((users,))
    if tuple(scores.shape) != (len(users), dataset.n_items) or not bool(torch.isfinite(scores).all()):
        raise UserError(
            f"full_sort_predict: expected finite scores {[len(users), dataset.n_items]}, a row per user, "
            f"got {list(scores.shape)}{'' if bool(torch.isfinite(scores).all()) else ' with NaN or infinite ones'}"
        )
    report.done.append("scores all items")


def _step(model: Any, optimizer: torch.optim.Optimizer, batch: torch.Tensor, step: int) -> None:
    terms = loss_terms(model.calculate_loss(batch))
    optimizer.zero_grad()
    total = torch.stack([term.reshape(()) for term in terms.values()]).sum()
    if not bool(torch.isfinite(total)):
        raise UserError(f"calculate_loss: {total.item()} at step {step + 1}")
    total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _opened() -> dict[str, str]:
    run = running.current()
    return run.opened if run else {}


def _config(file: ModelFile, folder: Path, overrides: Mapping[str, Any]) -> Config:
    write(generate(TINY), folder / "tiny")
    content = read_yaml(file.settings_file, str(file.settings_file)) if file.settings_file else {}
    if file.foreign:
        keys = own_keys(file, content)
    else:
        settings = load_class(file).settings
        keys = keys_of(settings) if settings else {}
    given = {"data_path": [str(folder)], "cache_dir": [str(folder / "cache")], "device": ["cpu"], **overrides}
    request = Request([file.name], ["tiny"], given, first_combination=True, plugins={file.name: file})
    (config,), _ = resolve(request, {file.name: keys | plugin_keys()})
    return config


def _keys(file: ModelFile, config: Config) -> Iterator[Row]:
    for key in file.reads:
        if key in OF_THE_RUN or key in ("model", "dataset"):
            yield "key", key, "of the run", ""
        elif config[key] is None and key in MMREC_VALUES:
            yield "key", key, f"{MMREC_VALUES[key]!r} (MMRec's value)", ""
        elif is_set(config, key):
            yield "key", key, f"{config[key]!r} ({Path(config.sources.get(key, 'default')).name})", ""
        elif key in file.needs:
            yield "key", key, "not set: None", f"--{key} VALUE, or a line in {file.name}.yaml"
        else:
            yield "key", key, "not set; the file has a default", ""


def _features(file: ModelFile) -> Iterator[Row]:
    if file.foreign and not file.needs_features:
        yield "features", "none", "is mentioned", ""
    for name in file.features if file.foreign and file.needs_features else ():
        yield "features", name, "given where the data set has them", ""


def _packages(file: ModelFile) -> Iterator[Row]:
    names: dict[str, None] = {}
    for name, source in [(file.tree.name_of(file.path), file.source), *((m.name, m.source) for m in file.modules)]:
        package = name.rpartition(".")[0]
        names |= dict.fromkeys(found for found, _ in imports_in(parse_bytes(source, name), package))
    for package in dict.fromkeys(name.partition(".")[0] for name in names):
        own = file.tree.is_own(package) or file.tree.find(package) is not None
        if own or package in sys.stdlib_module_names or package == "__future__":
            continue
        if importlib.util.find_spec(package) is not None:
            yield "package", package, "installed", ""
        elif package in STAND_IN_PACKAGES:
            yield "package", package, "not installed; a stand-in here", ""
        else:
            how = HARD_TO_INSTALL.get(package, f"pip install {NAMES_OF_PACKAGES.get(package, package)}")
            yield "package", package, "not installed", f"only if it is used: {how}"


def _modules(file: ModelFile) -> Iterator[Row]:
    for path in file.module_hashes:
        yield "module", path, f"taken from {file.tree.root}", ""
