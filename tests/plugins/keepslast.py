# ruff: noqa  (in the manner of files written for MMRec)
"""KEEPSLAST: scores from the tables of the last batch, which it puts in a parameter's place."""

import torch
import torch.nn as nn

from common.abstract_recommender import GeneralRecommender
from common.loss import BPRLoss


class KEEPSLAST(GeneralRecommender):
    def __init__(self, config, dataset):
        super(KEEPSLAST, self).__init__(config, dataset)
        dim = config["embedding_size"]
        self.ids = nn.Parameter(nn.init.xavier_normal_(torch.rand((self.n_users + self.n_items, dim))))
        self.gate = nn.Linear(dim, dim)
        self.result = nn.Parameter(nn.init.xavier_normal_(torch.rand((self.n_users + self.n_items, dim)))).to(
            self.device
        )
        self.loss = BPRLoss()

    def forward(self):
        self.result = self.ids + torch.tanh(self.gate(self.ids))
        self.halves = [self.result[: self.n_users], self.result[self.n_users :]]
        return self.result

    def calculate_loss(self, interaction):
        table = self.forward()
        user = table[interaction[0]]
        pos, neg = table[self.n_users + interaction[1]], table[self.n_users + interaction[2]]
        return self.loss((user * pos).sum(1), (user * neg).sum(1))

    def full_sort_predict(self, interaction):
        users, items = self.result[: self.n_users], self.halves[1]
        return torch.matmul(users[interaction[0]], items.t())
