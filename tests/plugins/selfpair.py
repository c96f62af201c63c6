# ruff: noqa  (in the manner of files written for MMRec)
"""SELFPAIR: positive pairs alone, pulled together by the shared encoder."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from common.abstract_recommender import GeneralRecommender
from common.encoders import LightGCN_Encoder
from common.loss import L2Loss


class SELFPAIR(GeneralRecommender):
    def __init__(self, config, dataset):
        super(SELFPAIR, self).__init__(config, dataset)
        self.encoder = LightGCN_Encoder(config, dataset)
        self.predictor = nn.Linear(config["embedding_size"], config["embedding_size"])
        self.dropout = config["dropout"]
        self.reg_loss = L2Loss()
        self.epochs_seen = 0

    def pre_epoch_processing(self):
        self.epochs_seen += 1

    def calculate_loss(self, interaction):
        assert interaction.shape[0] == 2
        users, items = self.encoder(interaction)
        with torch.no_grad():
            user_target, item_target = F.dropout(users, self.dropout), F.dropout(items, self.dropout)
        loss_ui = -F.cosine_similarity(self.predictor(users), item_target, dim=-1).mean() / 2
        loss_iu = -F.cosine_similarity(self.predictor(items), user_target, dim=-1).mean() / 2
        return loss_ui + loss_iu + config_weight(self) * self.reg_loss(users, items)

    def full_sort_predict(self, interaction):
        user = interaction[0]
        users, items = self.encoder.get_embedding()
        return self.predictor(users)[user] @ items.t() + users[user] @ self.predictor(items).t()


def config_weight(model):
    return 1e-4 / max(model.epochs_seen, 1)
