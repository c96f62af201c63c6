"""One training epoch of LightGCN and one evaluation, beside straightforward versions, in one run on one machine.

    python benchmarks/harness.py [--data_path DIR] [--rounds 3] [--evaluation] [--threads N]

On baby where DIR/baby is there, else on generated data of its size. The straightforward loader slices a shuffled pandas
frame and draws negatives row by row, its model multiplies a COO graph; the straightforward evaluation loops over users.
With `--evaluation`: scores, masks, the 50 largest and the metrics over the matrix product alone, on generated data of
Baby's and Elec's size; with one thread in processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench import alternate, config_for, median, synthetic
from torch import Tensor, nn

from common.graph import bipartite_adjacency, normalize_symmetric
from common.scoring import SCORE_ROWS, score_all_items
from common.trainer import make_optimizer
from runner.quick_start import build_model, make_evaluator
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset
from utils.data.loading import load_dataset
from utils.data.synthetic_spec import SIZES
from utils.evaluation.metrics import METRICS
from utils.evaluation.topk_evaluator import TopKEvaluator
from utils.paths import default_data_path

CPU = torch.device("cpu")


class RowByRowLoader:
    """Batches as a loop over a pandas frame makes them."""

    def __init__(self, dataset: Dataset, batch_size: int) -> None:
        self.frame = pd.DataFrame({"user": dataset.train.users, "item": dataset.train.items})
        self.batch_size = batch_size
        self.pool = list(np.unique(dataset.train.items))
        self.history = self.frame.groupby("user")["item"].apply(set).to_dict()

    def epoch(self):
        self.frame = self.frame.sample(frac=1)
        for begin in range(0, len(self.frame), self.batch_size):
            rows = self.frame.iloc[begin : begin + self.batch_size]
            negatives = []
            for _, row in rows.iterrows():
                item = random.choice(self.pool)
                while item in self.history[row["user"]]:
                    item = random.choice(self.pool)
                negatives.append(item)
            yield torch.tensor(np.stack([rows["user"], rows["item"], negatives]))


class PlainLightGCN(nn.Module):
    """LightGCN over a COO graph, layers stacked and averaged, two layers."""

    def __init__(self, dataset: Dataset, n_layers: int, width: int = 64) -> None:
        super().__init__()
        self.sizes, self.n_layers = [dataset.n_users, dataset.n_items], n_layers
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dataset.n_users, width)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dataset.n_items, width)))
        graph = normalize_symmetric(bipartite_adjacency(dataset.train.users, dataset.train.items, *self.sizes)).tocoo()
        self.graph = torch.sparse_coo_tensor(
            np.stack([graph.row, graph.col]), graph.data.astype(np.float32), graph.shape, check_invariants=False
        ).coalesce()

    def forward(self) -> tuple[Tensor, Tensor]:
        layers = [torch.cat([self.users, self.items])]
        for _ in range(self.n_layers):
            layers.append(torch.sparse.mm(self.graph, layers[-1]))
        users, items = torch.stack(layers, dim=1).mean(dim=1).split(self.sizes)
        return users, items

    def calculate_loss(self, batch: Tensor, reg_weight: float = 1e-4) -> Tensor:
        users, items = self.forward()
        user, pos, neg = users[batch[0]], items[batch[1]], items[batch[2]]
        bpr = -torch.log(1e-10 + torch.sigmoid((user * pos).sum(1) - (user * neg).sum(1))).mean()
        norms = self.users[batch[0]].norm() + self.items[batch[1]].norm() + self.items[batch[2]].norm()
        return bpr + reg_weight * norms / batch.shape[1]


def plain_epoch(model: PlainLightGCN, loader: RowByRowLoader, optimizer: torch.optim.Optimizer) -> None:
    for batch in loader.epoch():
        optimizer.zero_grad()
        loss = model.calculate_loss(batch)
        if torch.isnan(loss):
            raise FloatingPointError
        loss.backward()
        optimizer.step()


def plain_evaluation(users: Tensor, items: Tensor, dataset: Dataset, cutoffs: list[int]) -> dict[str, float]:
    """Recall, NDCG, MAP, precision, F1 and hit of the validation split, user by user."""
    history: dict[int, list[int]] = {}
    truth: dict[int, set[int]] = {}
    for user, item in zip(dataset.train.users.tolist(), dataset.train.items.tolist(), strict=True):
        history.setdefault(user, []).append(item)
    valid = dataset.splits["valid"]
    for user, item in zip(valid.users.tolist(), valid.items.tolist(), strict=True):
        truth.setdefault(user, set()).add(item)
    sums: dict[str, float] = {}
    for user, relevant in truth.items():
        scores = users[user] @ items.T
        scores[history[user]] = -math.inf
        ranked = scores.topk(max(cutoffs)).indices.tolist()
        hits = [item in relevant for item in ranked]
        for k in cutoffs:
            found = sum(hits[:k])
            gain = sum(1 / math.log2(rank + 2) for rank in range(k) if hits[rank])
            ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))
            average = sum(sum(hits[: rank + 1]) / (rank + 1) for rank in range(k) if hits[rank])
            p, r = found / k, found / len(relevant)
            values = {"recall": r, "precision": p, "ndcg": gain / ideal, "map": average / min(k, len(relevant))}
            values |= {"hit": float(found > 0), "f1": 2 * p * r / (p + r) if found else 0.0}
            for name, value in values.items():
                sums[f"{name}@{k}"] = sums.get(f"{name}@{k}", 0.0) + value
    return {name: value / len(truth) for name, value in sums.items()}


def over_product(name: str, rounds: int, n_users: int = 6400, width: int = 64) -> None:
    """Prints the time of an evaluation of some users over that of the product of their rows with those of all items."""
    dataset = synthetic(vars(SIZES[name]), features=False)
    users, items = torch.randn(dataset.n_users, width), torch.randn(dataset.n_items, width)
    evaluator = TopKEvaluator(dataset, "valid", tuple(METRICS), (5, 10, 20, 50), "mmrec", 2048, CPU, n_users)
    blocks = users[torch.from_numpy(evaluator.users)].split(SCORE_ROWS["cpu"])
    out = torch.empty(SCORE_ROWS["cpu"], dataset.n_items)

    def product() -> None:
        for block in blocks:
            torch.mm(block, items.T, out=out[: len(block)])

    tasks = {
        "product": product,
        "evaluation": lambda: evaluator.evaluate(lambda batch: score_all_items(users[batch], items)),
    }
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = {task: median(values) for task, values in alternate(tasks, rounds, clock).items()}
    ratio = seconds["evaluation"] / seconds["product"]
    title = f"{name}'s size, {len(evaluator.users):,} users"
    print(f"{title}: evaluation {seconds['evaluation']:.2f} s, {ratio:.2f} times its product")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default=str(default_data_path()))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--evaluation", action="store_true", help="an evaluation over its matrix product")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.evaluation:
        print(f"{arguments.threads} threads")
        for name in ("baby", "elec"):
            over_product(name, arguments.rounds)
        return
    config = config_for("LightGCN", "baby", data_path=arguments.data_path)
    real = (Path(arguments.data_path) / "baby" / "baby.inter").is_file()
    dataset = load_dataset(config, needs_features=False) if real else synthetic(vars(SIZES["baby"]), features=False)
    print(f"{'baby' if real else 'generated, baby-sized'}: {dataset.n_users:,} users, {dataset.n_items:,} items, "
          f"{len(dataset.train):,} training interactions; {torch.get_num_threads()} threads")  # fmt: skip

    model = build_model(config, dataset, CPU)
    optimizer = make_optimizer(config, model)
    loader = TrainLoader(dataset, config["train_batch_size"], 1, CPU)
    plain = PlainLightGCN(dataset, config["n_ui_layers"])
    plain_optimizer = torch.optim.Adam(plain.parameters(), lr=config["learning_rate"])
    rows = RowByRowLoader(dataset, config["train_batch_size"])
    evaluator = make_evaluator(config, dataset, "valid", CPU)

    def epoch() -> None:
        for batch in loader.epoch():
            optimizer.zero_grad(set_to_none=True)
            sum(model.calculate_loss(batch).values()).backward()  # type: ignore[union-attr]
            optimizer.step()

    def evaluation() -> dict[str, float]:
        with model.scoring():
            return evaluator.evaluate(lambda users: model.full_sort_predict((users,))).means()

    with torch.no_grad():
        users, items = model.forward()
        slow, fast = plain_evaluation(users, items, dataset, config["topk"]), evaluation()
    worst = max(abs(slow[name] - fast[name]) for name in fast)
    print(f"largest difference between the two evaluations over {len(fast)} metrics: {worst:.1e}")

    def evaluate_plainly() -> None:
        with torch.no_grad():
            plain_evaluation(users, items, dataset, config["topk"])

    for title, tasks in {
        "training epoch": {"ours": epoch, "straightforward": lambda: plain_epoch(plain, rows, plain_optimizer)},
        "evaluation": {"ours": evaluation, "straightforward": evaluate_plainly},
    }.items():
        seconds = {name: median(values) for name, values in alternate(tasks, arguments.rounds).items()}
        ratio = seconds["straightforward"] / seconds["ours"]
        print(f"{title}: {seconds['ours']:.2f} s against {seconds['straightforward']:.2f} s: {ratio:.1f} times faster")


if __name__ == "__main__":
    main()
