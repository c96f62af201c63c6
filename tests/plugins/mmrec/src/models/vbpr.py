# ruff: noqa  (in the manner of files written for MMRec)
import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from common.abstract_recommender import GeneralRecommender
from common.init import xavier_normal_initialization
from common.loss import BPRLoss, EmbLoss


class VBPR(GeneralRecommender):
    def __init__(self, config, dataloader):
        super(VBPR, self).__init__(config, dataloader)
        self.u_embedding_size = self.i_embedding_size = config["embedding_size"]
        self.reg_weight = config["reg_weight"]
        self.u_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, self.u_embedding_size * 2)))
        self.i_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, self.i_embedding_size)))
        if self.v_feat is not None and self.t_feat is not None:
            self.item_raw_features = torch.cat((self.t_feat, self.v_feat), -1)
        else:
            self.item_raw_features = self.v_feat if self.v_feat is not None else self.t_feat
        folder = os.path.abspath(config["data_path"] + config["dataset"])
        again = np.load(os.path.join(folder, config["vision_feature_file"]), allow_pickle=True)
        assert again.shape == tuple(self.v_feat.shape)
        self.item_linear = nn.Linear(self.item_raw_features.shape[1], self.i_embedding_size)
        self.loss, self.reg_loss = BPRLoss(), EmbLoss()
        self.apply(xavier_normal_initialization)

    def forward(self, dropout=0.0):
        item_embeddings = torch.cat((self.i_embedding, self.item_linear(self.item_raw_features)), -1)
        return F.dropout(self.u_embedding, dropout), F.dropout(item_embeddings, dropout)

    def calculate_loss(self, interaction):
        user, pos_item, neg_item = interaction[0], interaction[1], interaction[2]
        users, items = self.forward()
        u, p, n = users[user, :], items[pos_item, :], items[neg_item, :]
        mf_loss = self.loss(torch.mul(u, p).sum(dim=1), torch.mul(u, n).sum(dim=1))
        return mf_loss + self.reg_weight * self.reg_loss(u, p, n)

    def full_sort_predict(self, interaction):
        users, items = self.forward()
        return torch.matmul(users[interaction[0], :], items.transpose(0, 1))
