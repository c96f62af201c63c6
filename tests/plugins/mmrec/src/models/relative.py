# ruff: noqa  (in the manner of files written for MMRec)
import torch
import torch.nn as nn

from src.common.abstract_recommender import GeneralRecommender
from common.loss import BPRLoss, MarginLoss
from utils.graph_cache import neighbours
import utils.tools.shapes as shapes

from .helpers.cross import CrossModal
from .helpers import DEPTH


class RELATIVE(GeneralRecommender):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.users = nn.Embedding(self.n_users, config["hidden"])
        self.cross = CrossModal(self.v_feat.shape[1], shapes.doubled(config["hidden"]) // DEPTH)
        self.near = neighbours(self.v_feat, 3)
        self.loss, self.margin = BPRLoss(), MarginLoss()

    def forward(self):
        items = self.cross(self.v_feat)
        return self.users.weight, items + items[self.near].mean(1)

    def calculate_loss(self, interaction):
        users, items = self.forward()
        u, p, n = users[interaction[0]], items[interaction[1]], items[interaction[2]]
        pos, neg = (u * p).sum(1), (u * n).sum(1)
        return self.loss(pos, neg), self.margin(pos, neg)

    def full_sort_predict(self, interaction):
        users, items = self.forward()
        return users[interaction[0]] @ items.T
