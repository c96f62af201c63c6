# ruff: noqa  (in the manner of files written for MMRec)
import os

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn
import torch.nn.functional as F

from common.abstract_recommender import GeneralRecommender
from utils.utils import build_sim, build_knn_neighbourhood, compute_normalized_laplacian


class FREEDOM(GeneralRecommender):
    def __init__(self, config, dataset):
        super(FREEDOM, self).__init__(config, dataset)
        self.embedding_dim, self.feat_embed_dim = config["embedding_size"], config["feat_embed_dim"]
        self.knn_k, self.n_layers = config["knn_k"], config["n_mm_layers"]
        self.n_ui_layers, self.reg_weight = config["n_ui_layers"], config["reg_weight"]
        self.mm_image_weight, self.dropout = config["mm_image_weight"], config["dropout"]
        self.build_item_graph = True
        self.n_nodes = self.n_users + self.n_items
        self.interaction_matrix = dataset.inter_matrix(form="coo").astype(np.float32)
        self.norm_adj = self.full_graph().to(self.device)
        self.masked_adj, self.mm_adj = None, None
        self.edge_indices, self.edge_values = self.get_edge_info()
        self.edge_indices, self.edge_values = self.edge_indices.to(self.device), self.edge_values.to(self.device)
        self.user_embedding = nn.Embedding(self.n_users, self.embedding_dim)
        self.item_id_embedding = nn.Embedding(self.n_items, self.embedding_dim)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        dataset_path = os.path.abspath(config["data_path"] + config["dataset"])
        mm_adj_file = os.path.join(
            dataset_path, "mm_adj_freedomdsp_{}_{}.pt".format(self.knn_k, int(10 * self.mm_image_weight))
        )
        if self.v_feat is not None:
            self.image_embedding = nn.Embedding.from_pretrained(self.v_feat, freeze=False)
            self.image_trs = nn.Linear(self.v_feat.shape[1], self.feat_embed_dim)
        if self.t_feat is not None:
            self.text_embedding = nn.Embedding.from_pretrained(self.t_feat, freeze=False)
            self.text_trs = nn.Linear(self.t_feat.shape[1], self.feat_embed_dim)
        if os.path.exists(mm_adj_file):
            self.mm_adj = torch.load(mm_adj_file)
        else:
            if self.v_feat is not None:
                _, image_adj = self.knn_graph(self.image_embedding.weight.detach())
                self.mm_adj = image_adj
            if self.t_feat is not None:
                _, text_adj = self.knn_graph(self.text_embedding.weight.detach())
                self.mm_adj = text_adj
            if self.v_feat is not None and self.t_feat is not None:
                self.mm_adj = self.mm_image_weight * image_adj + (1.0 - self.mm_image_weight) * text_adj
                del text_adj, image_adj
            torch.save(self.mm_adj, mm_adj_file)
        self.mm_adj = torch.load(mm_adj_file).to(self.device)

    def knn_graph(self, features):
        _, near = torch.topk(build_sim(features), self.knn_k, dim=-1)
        rows = torch.arange(near.shape[0]).to(self.device)
        rows = torch.unsqueeze(rows, 1).expand(-1, self.knn_k)
        indices = torch.stack((torch.flatten(rows), torch.flatten(near)), 0)
        return indices, self.laplacian(indices, (self.n_items, self.n_items))

    def laplacian(self, indices, adj_size):
        adj = torch.sparse.FloatTensor(indices, torch.ones_like(indices[0]), adj_size)
        row_sum = 1e-7 + torch.sparse.sum(adj, -1).to_dense()
        r_inv_sqrt = torch.pow(row_sum, -0.5)
        return torch.sparse.FloatTensor(indices, r_inv_sqrt[indices[0]] * r_inv_sqrt[indices[1]], adj_size)

    def full_graph(self):
        A = sp.dok_matrix((self.n_nodes, self.n_nodes), dtype=np.float32)
        inter = self.interaction_matrix
        data = dict(zip(zip(inter.row, inter.col + self.n_users), [1] * inter.nnz))
        data.update(dict(zip(zip(inter.col + self.n_users, inter.row), [1] * inter.nnz)))
        A._update(data)
        diag = np.array((A > 0).sum(axis=1).flatten())[0] + 1e-7
        L = sp.coo_matrix(sp.diags(np.power(diag, -0.5)) * A * sp.diags(np.power(diag, -0.5)))
        i = torch.LongTensor(np.array([L.row, L.col]))
        return torch.sparse.FloatTensor(i, torch.FloatTensor(L.data), torch.Size((self.n_nodes, self.n_nodes)))

    def get_edge_info(self):
        rows = torch.from_numpy(self.interaction_matrix.row)
        cols = torch.from_numpy(self.interaction_matrix.col)
        edges = torch.stack([rows, cols]).type(torch.LongTensor)
        return edges, self.edge_norm(edges, torch.Size((self.n_users, self.n_items)))

    def edge_norm(self, indices, adj_size):
        adj = torch.sparse.FloatTensor(indices, torch.ones_like(indices[0]).float(), adj_size)
        rows = torch.pow(1e-7 + torch.sparse.sum(adj, -1).to_dense(), -0.5)[indices[0]]
        cols = torch.pow(1e-7 + torch.sparse.sum(adj.t(), -1).to_dense(), -0.5)[indices[1]]
        return rows * cols

    def pre_epoch_processing(self):
        if self.dropout <= 0.0:
            self.masked_adj = self.norm_adj
            return
        keep_len = int(self.edge_values.size(0) * (1.0 - self.dropout))
        keep = self.edge_indices[:, torch.multinomial(self.edge_values, keep_len)]
        values = self.edge_norm(keep, torch.Size((self.n_users, self.n_items)))
        keep = torch.cat((keep, torch.flip(keep, [0])), 1).clone()
        keep[0][keep_len:] += self.n_users
        keep[1][:keep_len] += self.n_users
        self.masked_adj = torch.sparse.FloatTensor(keep, torch.cat((values, values)), self.norm_adj.shape).to(
            self.device
        )

    def forward(self, adj):
        h = self.item_id_embedding.weight
        for _ in range(self.n_layers):
            h = torch.sparse.mm(self.mm_adj, h)
        ego = torch.cat((self.user_embedding.weight, self.item_id_embedding.weight), dim=0)
        every = [ego]
        for _ in range(self.n_ui_layers):
            ego = torch.sparse.mm(adj, ego)
            every += [ego]
        every = torch.stack(every, dim=1).mean(dim=1, keepdim=False)
        u_g, i_g = torch.split(every, [self.n_users, self.n_items], dim=0)
        return u_g, i_g + h

    def bpr_loss(self, users, pos_items, neg_items):
        pos, neg = torch.sum(users * pos_items, dim=1), torch.sum(users * neg_items, dim=1)
        return -torch.mean(F.logsigmoid(pos - neg))

    def calculate_loss(self, interaction):
        users, pos_items, neg_items = interaction[0], interaction[1], interaction[2]
        ua, ia = self.forward(self.masked_adj)
        self.build_item_graph = False
        batch_mf_loss = self.bpr_loss(ua[users], ia[pos_items], ia[neg_items])
        mf_v_loss, mf_t_loss = 0.0, 0.0
        if self.t_feat is not None:
            text = self.text_trs(self.text_embedding.weight)
            mf_t_loss = self.bpr_loss(ua[users], text[pos_items], text[neg_items])
        if self.v_feat is not None:
            image = self.image_trs(self.image_embedding.weight)
            mf_v_loss = self.bpr_loss(ua[users], image[pos_items], image[neg_items])
        return batch_mf_loss + self.reg_weight * (mf_t_loss + mf_v_loss)

    def full_sort_predict(self, interaction):
        u, i = self.forward(self.norm_adj)
        return torch.matmul(u[interaction[0]], i.transpose(0, 1))
