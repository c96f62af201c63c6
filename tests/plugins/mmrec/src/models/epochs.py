# ruff: noqa  (in the manner of files written for MMRec)
import numpy as np
import torch
import torch.nn as nn
from torch_sparse import SparseTensor

from common.abstract_recommender import GeneralRecommender


class EPOCHS(GeneralRecommender):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.dataset, self.rng = dataset, np.random.default_rng(5)
        self.ids = nn.Embedding(self.n_users + self.n_items, config["embedding_size"])
        self.counts = np.zeros(self.n_items)
        for batch in dataset:
            for item in batch[1].tolist():
                self.counts[item] += 1
        inter = dataset.inter_matrix(form="coo")
        row, col = torch.LongTensor(inter.row), torch.LongTensor(inter.col)
        self.adj = SparseTensor(row=row, col=col, sparse_sizes=(self.n_users, self.n_items)).to(config["device"])
        self.opt = torch.optim.Adam(self.ids.parameters(), lr=0.01)

    def pre_epoch_processing(self, epoch_idx):
        self.epoch = epoch_idx
        self.noise = torch.from_numpy(self.rng.standard_normal(self.n_items)).float() / (1 + epoch_idx)
        batch = next(iter(self.dataset))
        self.opt.zero_grad()
        (self.ids(batch[0]) ** 2).mean().backward()
        self.opt.step()

    def calculate_loss(self, interaction):
        table = self.ids.weight
        users, items = table[: self.n_users], table[self.n_users :]
        users = users + self.adj.matmul(items, reduce="mean")
        u = users[interaction[0]]
        x = (u * items[interaction[2]]).sum(1) - (u * items[interaction[1]]).sum(1)
        self.counts = self.counts * 0.9
        return torch.sigmoid(x + self.noise[interaction[1]] * self.epoch).mean()

    def full_sort_predict(self, interaction):
        users, items = self.ids.weight.split([self.n_users, self.n_items])
        return users[interaction[0]] @ items.T + torch.from_numpy(self.counts).float()
