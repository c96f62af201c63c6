"""Recommendations from the checkpoint of a finished run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cli.command_line import config_of
from common.scorers import Scorers, ScorerWeights
from runner.quick_start import build_model, pick_device
from runner.registry import class_of
from utils.data.dataset import load_dataset
from utils.data.id_mapping import original_ids
from utils.errors import UserError
from utils.evaluation.topk import ranked_topk
from utils.runs.run_folder import RunFolder, read_torch, write_csv

SHOWN_USERS = 20
BLOCK = 1024


def recommend(
    folder: Path,
    users: list[int] | None,
    k: int,
    output: Path | None,
    data_path: str | None,
    device_word: str | None,
) -> int:
    """Prints the k best items of users and writes them to a tab-separated file; training items are left out.

    Args:
        folder: a run folder with config.yaml and checkpoint.pt.
        users: user ids; None: all users.
        k: items per user.
        output: file to write; None: recommendations.tsv in the run folder.
        data_path: where the data set is now, if not where it was.
        device_word: auto, cpu, cuda or cuda:N; None: as in the run.

    Returns:
        The exit code, 0.

    Raises:
        UserError: for a folder that is no run, other data than the run's, unknown users, or a k beyond the items.
    """
    given = {"data_path": data_path, "device": device_word}
    config = config_of(folder, {key: value for key, value in given.items() if value})
    trained_on = RunFolder(folder).manifest()["hashes"]
    if config["modalities"]:  # a data set file of the tree may name some that were not there
        there = {name: file for name, file in config["modalities"].items() if name in trained_on}
        config = replace(config, entries=config.entries | {"modalities": there or None})
    device = pick_device(config["device"])
    output = output or folder / "recommendations.tsv"
    if not output.parent.is_dir():
        raise UserError(f"--output: there is no folder {output.parent}")
    if output.is_dir():
        raise UserError(f"--output: expected a file to write, got the folder {output}")
    if not (folder / "checkpoint.pt").is_file():
        raise UserError(
            f"{folder}: no checkpoint.pt: the run is not through its first evaluation; --resume continues it"
        )
    checkpoint = read_torch(folder / "checkpoint.pt")
    dataset = load_dataset(config, class_of(config).needs_features)
    if trained_on != dataset.fingerprint:
        raise UserError(
            f"{folder}: '{config.dataset}' in {config['data_path']} is not the data that this run trained on; "
            "--data_path names another folder"
        )
    wanted = list(range(dataset.n_users)) if users is None else users
    outside = [user for user in wanted if not 0 <= user < dataset.n_users]
    if outside:
        raise UserError(f"--users: there is no user {outside[0]}; ids go from 0 to {dataset.n_users - 1}")
    if k > dataset.n_items:
        raise UserError(f"--k: {k} is more than the {dataset.n_items} items of '{config.dataset}'")
    model = build_model(config, dataset, device)
    try:
        model.load_state_dict(checkpoint["model"])
        # A run that tuned its scorers has the weights that it chose in its checkpoint.
        scorers = Scorers(dataset, device, ScorerWeights.of(checkpoint.get("scorers", config)))
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}/checkpoint.pt: not of this model ({error})".splitlines()[0]) from None
    seen = dataset.inter_matrix("csr")
    user_names = original_ids(config, config["user_id_field"], dataset.n_users)
    item_names = original_ids(config, config["item_id_field"], dataset.n_items)
    rows = []
    with model.scoring():
        for begin in range(0, len(wanted), BLOCK):
            block = np.asarray(wanted[begin : begin + BLOCK])
            # A copy, since a plugin may hand out a table that it keeps.
            ids = torch.from_numpy(block).to(device)
            scores = scorers.add(model.full_sort_predict((ids,)).clone(), ids)
            place, item = seen[block].nonzero()
            scores[torch.from_numpy(place).long(), torch.from_numpy(item).long()] = -torch.inf
            best, items = ranked_topk(scores, k)
            for user, values, columns in zip(block, best.tolist(), items.tolist(), strict=True):
                for rank, (value, column) in enumerate(zip(values, columns, strict=True), 1):
                    if value > -np.inf:
                        rows.append((user_names[user], rank, item_names[column], value))
    shown = 0
    for user in wanted[:SHOWN_USERS]:
        mine = []
        while shown < len(rows) and rows[shown][0] == user_names[user]:
            mine.append(rows[shown][2])
            shown += 1
        print(f"user {user_names[user]}: {' '.join(mine)}")
    if len(wanted) > SHOWN_USERS:
        print(f"... and {len(wanted) - SHOWN_USERS:,} more users")
    write_csv(output, (dict(zip(("user", "rank", "item", "score"), row, strict=True)) for row in rows), "\t")
    print(f"written to {output}")
    return 0
