"""Seconds of an epoch and of an evaluation on a GPU, against GTC as one would write it first, in the same run.

    python benchmarks/gpu.py [--sizes baby sports elec] [--models GTC ...] [--device cuda] [--steps 60] [--dense_gib 40]

Generated data of the sizes of Baby, Sports and Elec, two features of 256 columns, batch 2048, default settings. An epoch
is the time of `--steps` steps (or of all, where there are fewer) after some unmeasured ones, times the batches of an
epoch over them; the loader's shuffling and negatives are within. Evaluation: all nodes encoded, full rankings of the
validation users, all metrics. Memory is the most that PyTorch had allocated on the GPU while training, above the model.

The straightforward GTC has the same parameters and the same BPR loss and penalty, which is checked before it is timed,
where GTC is among `--models` before it. Its graph is built anew in each step, once in sparse COO form and once as a dense
matrix; autograd stores each layer; all nodes are fused; items are aligned against all items, by a matrix of logits. A
dense matrix above `--dense_gib` is not tried.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from bench import config_for, synthetic
from torch import Tensor

from common.graph import SparseMatrix
from common.losses import bpr_loss, half_squared_l2_over_batch
from common.precision import mixed_precision
from common.trainer import loss_terms, make_optimizer
from models.gtc import GTC
from runner.quick_start import build_model, make_evaluator, seed_everything
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset
from utils.data.synthetic_spec import SIZES

WARM_UP = 8  # steps


class StraightforwardGTC(GTC):
    """The default GTC without what `common/` does for speed; nothing is missing in its data.

    Args:
        dense: whether graphs are dense matrices.
    """

    dense = False

    def _matrix(self, rows: Tensor, columns: Tensor, weights: Tensor, shape: tuple[int, int]) -> Tensor:
        coo = torch.sparse_coo_tensor(torch.stack([rows, columns]), weights, shape, check_invariants=False)
        return coo.to_dense() if self.dense else coo.coalesce()

    def _item_matrix(self, graph: SparseMatrix) -> Tensor:
        rows = torch.repeat_interleave(torch.arange(self.n_items, device=graph.offsets.device), graph.offsets.diff())
        return self._matrix(rows, graph.columns, graph.weights, (self.n_items, self.n_items))

    def prepare(self) -> None:
        """What stays the same from step to step."""
        half = len(self.graph.columns) // 2
        self.users, self.items = self.left_out.rows[:half], self.graph.local_columns[:half]
        self.item_matrices = {view: self._item_matrix(graph) for view, graph in self.item_graphs.items()}

    def _interactions(self, batch: Tensor) -> Tensor:
        """The normalised graph [N, N] without the interactions of the batch."""
        kept = ~torch.isin(self.users * self.n_items + self.items, batch[0] * self.n_items + batch[1])
        users, items = self.users[kept], self.items[kept]
        degrees = [torch.bincount(ids, minlength=n) for ids, n in ((users, self.n_users), (items, self.n_items))]
        weights = (degrees[0][users] * degrees[1][items]).float().rsqrt()
        n, items = self.n_users + self.n_items, items + self.n_users
        return self._matrix(torch.cat([users, items]), torch.cat([items, users]), weights.repeat(2), (n, n))

    def _mean_of_layers(self, graph: Tensor, of_items: Tensor) -> Tensor:
        layers = [torch.cat([of_items.new_zeros(self.n_users, of_items.shape[1]), of_items])]
        for _ in range(self.options.n_ui_layers):
            layers.append(torch.mm(graph, layers[-1]))
        return torch.stack(layers).mean(dim=0)

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options, graph = self.options, self._interactions(batch)
        projected = {m: self.projections[m](self.features(m)) for m in self.modalities}
        projected["product"] = reduce(torch.mul, projected.values())
        told = options.content_rate * self.content_layer(self.told) if self.content_share else 0
        interaction = self._mean_of_layers(graph, self.item_embedding + told)
        content = {}
        for view, x in projected.items():
            gated = self.item_embedding * torch.sigmoid(self.gates[view](x))
            mixed = torch.mm(self.item_matrices[view], gated).lerp(gated, self.own_share)
            padded = torch.cat([mixed.new_zeros(self.n_users, mixed.shape[1]), mixed])
            content[view] = torch.cat([torch.mm(graph, padded)[: self.n_users], mixed])
        users, items = self.fuse(interaction, content, {}).split([self.n_users, self.n_items])
        user, pos, neg = users[batch[0]], items[batch[1]], items[batch[2]]
        scores = [(user * item).sum(1) + self.prior[ids] for item, ids in ((pos, batch[1]), (neg, batch[2]))]
        mean = torch.stack([*content.values()]).mean(dim=0)
        rows = batch[0].unique()
        aligned = [(interaction[rows], mean[rows]), (interaction[self.n_users :], mean[self.n_users :])]
        losses = []
        for first, second in aligned:
            logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T * self.log_scale.exp()
            places = torch.arange(len(logits), device=logits.device)
            losses.append((F.cross_entropy(logits, places) + F.cross_entropy(logits.T, places)) / 2)
        embedded = self.item_embedding[batch[1]], self.item_embedding[batch[2]]
        penalty = options.reg_weight * half_squared_l2_over_batch(self.user_embedding[batch[0]], *embedded)
        # Of all nodes, where ours takes those of the batch: the weight is a number near it.
        weight = options.tc_weight * interaction.detach().square().sum(dim=1).mean()
        return {"bpr": bpr_loss(*scores), "alignment": weight * sum(losses) / 2, "reg": penalty}


class DenseGTC(StraightforwardGTC):
    """With dense graphs."""

    dense = True


# What is measured: a class of this file or None for the project's own, and settings.
MODELS: dict[str, tuple[type[StraightforwardGTC] | None, dict[str, Any]]] = {
    "LightGCN": (None, {}),
    "GTC": (None, {}),
    "GTC, amp": (None, {"amp": True}),
    "GTC, denoised gates": (None, {"denoising": "after", "generated_in": "gates"}),
    "straightforward, COO": (StraightforwardGTC, {}),
    "straightforward, dense": (DenseGTC, {}),
}


def waited(device: torch.device) -> float:
    """The time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def steps_of(model: Any, optimizer: Any, loader: TrainLoader, precision: Any) -> Callable[[int], int]:
    """A function that makes up to some steps of a fresh epoch and returns how many it made."""

    def run(count: int) -> int:
        made = 0
        model.train()
        model.pre_epoch_processing()
        for batch in loader.epoch():
            if made == count:
                break
            model.pre_step_processing(batch)
            with precision:
                terms = loss_terms(model.calculate_loss(batch))
                loss = torch.stack([term.reshape(()) for term in terms.values()]).sum()
            optimizer.zero_grad(set_to_none=not model.keeps_zero_gradients)
            loss.backward()
            optimizer.step()
            made += 1
        model.post_epoch_processing()
        return made

    return run


def same_losses(one: Any, other: Any, batch: Tensor) -> None:
    """Fails unless both models, with equal weights, have the same BPR loss and penalty."""
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        ours, theirs = (model.train().calculate_loss(batch) for model in (one, other))
    for term in ("bpr", "reg"):
        torch.testing.assert_close(ours[term], theirs[term], rtol=1e-4, atol=1e-7)


def measure(size: str, arguments: argparse.Namespace) -> None:
    """Prints a line for each model on data of a size."""
    device, cuda = arguments.device, arguments.device.type == "cuda"
    begin = time.perf_counter()
    dataset: Dataset = synthetic(vars(replace(SIZES[size], feature_dims={"a": 256, "b": 256})), features=True)
    print(f"{size}: {dataset.n_users:,} users, {dataset.n_items:,} items, {len(dataset.train.users):,} training "
          f"interactions; made in {time.perf_counter() - begin:.0f} s", flush=True)  # fmt: skip
    n = dataset.n_users + dataset.n_items
    reference = None
    for name in arguments.models:
        kind, own = MODELS[name]
        if kind is DenseGTC and 4 * n * n > arguments.dense_gib * 2**30:
            print(f"  {name}: its graph would take {4 * n * n / 2**30:.0f} GiB", flush=True)
            continue
        config = config_for("GTC" if kind else name.partition(",")[0], "demo", **own)
        if kind:
            seed_everything(config["seed"])
            model: Any = kind(config, dataset).to(device)
            model.prepare()
        else:
            model = build_model(config, dataset, device)
        size, seed = config["train_batch_size"], config["seed"]
        loader = TrainLoader(dataset, size, seed, device, model.needs_negatives, model.batches_by_user)
        if name == "GTC":
            reference = model
        elif kind and reference:
            same_losses(reference, model, next(iter(loader.epoch())))
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) if cuda else 0
        run = steps_of(model, make_optimizer(config, model), loader, mixed_precision(device, config["amp"]))
        try:
            run(WARM_UP)
            start = waited(device)
            made = run(arguments.steps)
            epoch = (waited(device) - start) * len(loader) / made
        except torch.cuda.OutOfMemoryError:
            print(f"  {name}: out of the GPU's memory", flush=True)
            continue
        line = f"  {name}: epoch {epoch:.2f} s ({1e3 * epoch / len(loader):.1f} ms a step, {made} of {len(loader)})"
        if cuda:
            line += f", {(torch.cuda.max_memory_allocated(device) - before) / 2**30:.2f} GiB above the model's"
        if not (kind or own):
            evaluator = make_evaluator(config, dataset, "valid", device)
            seconds = []
            for _ in range(2):
                start = waited(device)
                with model.scoring():
                    evaluator.evaluate(lambda users, model=model: model.full_sort_predict((users,)))
                seconds.append(waited(device) - start)
            line += f", evaluation {min(seconds):.2f} s"
        print(line, flush=True)
        del run
        if model is not reference:
            del model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=["baby", "sports", "elec"])
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--dense_gib", type=float, default=40)
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name(arguments.device) if arguments.device.type == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}", flush=True)
    for size in arguments.sizes:
        measure(size, arguments)


if __name__ == "__main__":
    main()
