# ruff: noqa  (in the manner of files written for MMRec)
r"""
GRAPHRANK: propagated ids, ranked pairwise. The graph is built with a private method of older SciPy.
"""

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn

from common.abstract_recommender import GeneralRecommender
from common.init import xavier_uniform_initialization
from common.loss import BPRLoss, EmbLoss


class GRAPHRANK(GeneralRecommender):
    def __init__(self, config, dataset):
        super(GRAPHRANK, self).__init__(config, dataset)
        self.embedding_size = config["embedding_size"]
        self.n_layers = config["n_layers"]
        self.reg_weight = config["lambda"]
        self.interaction_matrix = dataset.inter_matrix(form="coo").astype(np.float32)
        self.user_embedding = nn.Embedding(self.n_users, self.embedding_size)
        self.item_embedding = nn.Embedding(self.n_items, self.embedding_size)
        self.bpr_loss, self.emb_loss = BPRLoss(), EmbLoss()
        self.norm_adj = self.build_graph().to(self.device)
        self.apply(xavier_uniform_initialization)

    def build_graph(self):
        n = self.n_users + self.n_items
        A = sp.dok_matrix((n, n), dtype=np.float32)
        inter = self.interaction_matrix
        entries = dict(zip(zip(inter.row, inter.col + self.n_users), [1] * inter.nnz))
        entries.update(dict(zip(zip(inter.col + self.n_users, inter.row), [1] * inter.nnz)))
        A._update(entries)
        degree = np.array((A > 0).sum(axis=1).flatten())[0] + 1e-7
        D = sp.diags(np.power(degree, -0.5))
        L = sp.coo_matrix(D * A * D)
        places = torch.LongTensor(np.array([L.row, L.col]))
        return torch.sparse_coo_tensor(places, torch.FloatTensor(L.data), (n, n), check_invariants=False)

    def forward(self):
        layer = torch.cat([self.user_embedding.weight, self.item_embedding.weight])
        layers = [layer]
        for _ in range(self.n_layers):
            layer = torch.sparse.mm(self.norm_adj, layer)
            layers.append(layer)
        return torch.split(torch.stack(layers, dim=1).mean(dim=1), [self.n_users, self.n_items])

    def calculate_loss(self, interaction):
        user, pos, neg = interaction[0], interaction[1], interaction[2]
        users, items = self.forward()
        u, p, n = users[user], items[pos], items[neg]
        mf_loss = self.bpr_loss((u * p).sum(dim=1), (u * n).sum(dim=1))
        reg_loss = self.emb_loss(self.user_embedding(user), self.item_embedding(pos), self.item_embedding(neg))
        return mf_loss, self.reg_weight * reg_loss.reshape(1)

    def full_sort_predict(self, interaction):
        users, items = self.forward()
        return torch.matmul(users[interaction[0]], items.transpose(0, 1))
