# ruff: noqa  (in the manner of files written for MMRec)
import copy

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.functional import cosine_similarity

from common.abstract_recommender import GeneralRecommender
from common.loss import EmbLoss


class BM3(GeneralRecommender):
    def __init__(self, config, dataset):
        super(BM3, self).__init__(config, dataset)
        dim = config["embedding_size"]
        self.n_layers, self.reg_weight, self.cl_weight = config["n_layers"], config["reg_weight"], config["cl_weight"]
        self.dropout, self.n_nodes = config["dropout"], self.n_users + self.n_items
        inter = dataset.inter_matrix(form="coo").astype(np.float32)
        both = sp.bmat([[None, inter], [inter.T, None]]).tocoo()
        degree = np.array((both > 0).sum(1)).flatten() + 1e-7
        values = both.data * np.power(degree, -0.5)[both.row] * np.power(degree, -0.5)[both.col]
        places = torch.LongTensor(np.array([both.row, both.col]))
        self.norm_adj = torch.sparse.FloatTensor(
            places, torch.FloatTensor(values), torch.Size((self.n_nodes, self.n_nodes))
        ).to(self.device)
        self.user_embedding, self.item_id_embedding = nn.Embedding(self.n_users, dim), nn.Embedding(self.n_items, dim)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        self.predictor, self.reg_loss = nn.Linear(dim, dim), EmbLoss()
        nn.init.xavier_normal_(self.predictor.weight)
        if self.v_feat is not None:
            self.image_embedding = nn.Embedding.from_pretrained(self.v_feat, freeze=False)
            self.image_trs = nn.Linear(self.v_feat.shape[1], dim)
            nn.init.xavier_normal_(self.image_trs.weight)
        if self.t_feat is not None:
            self.text_embedding = nn.Embedding.from_pretrained(self.t_feat, freeze=False)
            self.text_trs = nn.Linear(self.t_feat.shape[1], dim)
            nn.init.xavier_normal_(self.text_trs.weight)

    def forward(self):
        h = self.item_id_embedding.weight
        layers = [torch.cat((self.user_embedding.weight, h), dim=0)]
        for _ in range(self.n_layers):
            layers += [torch.sparse.mm(self.norm_adj, layers[-1])]
        users, items = torch.split(torch.stack(layers, 1).mean(1), [self.n_users, self.n_items], dim=0)
        return users, items + h

    def calculate_loss(self, interactions):
        u_ori, i_ori = self.forward()
        t_ori = v_ori = None
        if self.t_feat is not None:
            t_ori = self.text_trs(self.text_embedding.weight)
        if self.v_feat is not None:
            v_ori = self.image_trs(self.image_embedding.weight)
        with torch.no_grad():
            u_target, i_target = u_ori.clone(), i_ori.clone()
            u_target.detach()
            u_target, i_target = F.dropout(u_target, self.dropout), F.dropout(i_target, self.dropout)
            t_target = F.dropout(t_ori.clone(), self.dropout) if self.t_feat is not None else 0
            v_target = F.dropout(v_ori.clone(), self.dropout) if self.v_feat is not None else 0
        u, i = self.predictor(u_ori)[interactions[0], :], self.predictor(i_ori)[interactions[1], :]
        users, items = interactions[0], interactions[1]
        loss_ui = 1 - cosine_similarity(u, i_target[items].detach(), dim=-1).mean()
        loss_iu = 1 - cosine_similarity(i, u_target[users].detach(), dim=-1).mean()
        total = 0.0
        for own, target in ((t_ori, t_target), (v_ori, v_target)):
            if own is None:
                continue
            own = self.predictor(own)[items, :]
            total += 1 - cosine_similarity(own, i_target[items].detach(), dim=-1).mean()
            total += 1 - cosine_similarity(own, target[items].detach(), dim=-1).mean()
        return loss_ui + loss_iu, self.reg_weight * self.reg_loss(u_ori, i_ori), self.cl_weight * total

    def full_sort_predict(self, interaction):
        u, i = self.forward()
        u, i = self.predictor(u), self.predictor(i)
        return torch.matmul(u[interaction[0]], i.transpose(0, 1))
