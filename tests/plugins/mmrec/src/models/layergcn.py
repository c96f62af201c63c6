# ruff: noqa  (in the manner of files written for MMRec)
import random

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn
import torch.nn.functional as F

from models.common.abstract_recommender import GeneralRecommender
from models.common.loss import BPRLoss, L2Loss


class LAYERGCN(GeneralRecommender):
    def __init__(self, config, dataset):
        super(LAYERGCN, self).__init__(config, dataset)
        self.interaction_matrix = dataset.inter_matrix(form="coo").astype(np.float32)
        self.latent_dim, self.n_layers = config["embedding_size"], config["n_layers"]
        self.reg_weight, self.dropout = config["reg_weight"], config["dropout"]
        self.n_nodes = self.n_users + self.n_items
        self.user_embeddings = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, self.latent_dim)))
        self.item_embeddings = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, self.latent_dim)))
        self.edge_indices = torch.cuda.LongTensor(np.array([self.interaction_matrix.row, self.interaction_matrix.col]))
        self.masked_adj = self.forward_adj = None
        self.norm_adj_matrix = self.adjacency(self.edge_indices)
        self.pruning_random = False
        self.reg_loss = L2Loss()

    def adjacency(self, edges):
        ones = torch.cuda.FloatTensor(edges.size(1)).fill_(1.0)
        users = torch.zeros(self.n_users).cuda().index_add_(0, edges[0], ones) + 1e-7
        items = torch.zeros(self.n_items, device="cuda").index_add_(0, edges[1], ones) + 1e-7
        values = users.pow(-0.5)[edges[0]] * items.pow(-0.5)[edges[1]]
        places = torch.stack((edges[0], edges[1] + self.n_users))
        places = torch.cat((places, places.flip(0)), 1)
        return torch.cuda.sparse.FloatTensor(places, torch.cat((values, values)), torch.Size((self.n_nodes,) * 2))

    def pre_epoch_processing(self):
        if self.dropout <= 0.0:
            self.masked_adj = self.norm_adj_matrix
            return
        keep_len = int(self.edge_indices.size(1) * (1.0 - self.dropout))
        if self.pruning_random:
            keep = torch.tensor(random.sample(range(self.edge_indices.size(1)), keep_len))
        else:
            keep = torch.multinomial(torch.ones(self.edge_indices.size(1)), keep_len)
        self.pruning_random = True ^ self.pruning_random
        self.masked_adj = self.adjacency(self.edge_indices[:, keep])

    def forward(self):
        ego = torch.cat([self.user_embeddings, self.item_embeddings], 0)
        every, layers = ego, []
        for _ in range(self.n_layers):
            every = torch.sparse.mm(self.forward_adj, every)
            every = torch.einsum("a,ab->ab", F.cosine_similarity(every, ego, dim=-1), every)
            layers.append(every)
        return torch.split(torch.sum(torch.stack(layers, dim=0), dim=0), [self.n_users, self.n_items])

    def calculate_loss(self, interaction):
        user, pos_item, neg_item = interaction[0], interaction[1], interaction[2]
        self.forward_adj = self.masked_adj
        users, items = self.forward()
        pos = torch.mul(users[user], items[pos_item]).sum(1)
        neg = torch.mul(users[user], items[neg_item]).sum(1)
        reg = self.reg_loss(self.user_embeddings[user], self.item_embeddings[pos_item], self.item_embeddings[neg_item])
        return -torch.sum(F.logsigmoid(pos - neg)) + self.reg_weight * reg

    def full_sort_predict(self, interaction):
        self.forward_adj = self.norm_adj_matrix
        users, items = self.forward()
        return torch.matmul(users[interaction[0], :], items.transpose(0, 1))
