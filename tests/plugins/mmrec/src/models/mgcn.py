# ruff: noqa  (in the manner of files written for MMRec)
import os

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn
import torch.nn.functional as F

from common.abstract_recommender import GeneralRecommender
from utils.utils import build_sim, build_knn_normalized_graph, compute_normalized_laplacian


class MGCN(GeneralRecommender):
    def __init__(self, config, dataset):
        super(MGCN, self).__init__(config, dataset)
        self.sparse = True
        self.cl_loss, self.reg_weight = config["cl_loss"], config["reg_weight"]
        self.n_ui_layers, self.n_layers = config["n_ui_layers"], config["n_layers"]
        dim, self.knn_k = config["embedding_size"], config["knn_k"]
        self.interaction_matrix = dataset.inter_matrix(form="coo").astype(np.float32)
        self.user_embedding = nn.Embedding(self.n_users, dim)
        self.item_id_embedding = nn.Embedding(self.n_items, dim)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        folder = os.path.abspath(config["data_path"] + config["dataset"])
        self.norm_adj = self.to_tensor(self.get_adj_mat()).float().to(self.device)
        self.R = self.to_tensor(self.R).float().to(self.device)
        for name, feat in (("image", self.v_feat), ("text", self.t_feat)):
            kept = os.path.join(folder, "{}_adj_{}_{}.pt".format(name, self.knn_k, self.sparse))
            table = nn.Embedding.from_pretrained(feat, freeze=False)
            setattr(self, name + "_embedding", table)
            if os.path.exists(kept):
                adj = torch.load(kept)
            else:
                adj = build_sim(table.weight.detach())
                adj = build_knn_normalized_graph(adj, topk=self.knn_k, is_sparse=self.sparse, norm_type="sym")
                torch.save(adj, kept)
            setattr(self, name + "_original_adj", adj.cuda())
            setattr(self, name + "_trs", nn.Linear(feat.shape[1], dim))
        self.softmax = nn.Softmax(dim=-1)
        self.query_common = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))
        gate = lambda: nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid())
        self.gate_v, self.gate_t, self.gate_image_prefer, self.gate_text_prefer = gate(), gate(), gate(), gate()
        self.tau = 0.5

    def get_adj_mat(self):
        n = self.n_users + self.n_items
        adj_mat = sp.dok_matrix((n, n), dtype=np.float32).tolil()
        R = self.interaction_matrix.tolil()
        adj_mat[: self.n_users, self.n_users :] = R
        adj_mat[self.n_users :, : self.n_users] = R.T
        adj_mat = adj_mat.todok()
        d_inv = np.power(np.array(adj_mat.sum(1)), -0.5).flatten()
        d_inv[np.isinf(d_inv)] = 0.0
        d_mat_inv = sp.diags(d_inv)
        norm_adj_mat = d_mat_inv.dot(adj_mat).dot(d_mat_inv).tolil()
        self.R = norm_adj_mat[: self.n_users, self.n_users :]
        return norm_adj_mat.tocsr()

    def to_tensor(self, matrix):
        matrix = matrix.tocoo().astype(np.float32)
        indices = torch.from_numpy(np.vstack((matrix.row, matrix.col)).astype(np.int64))
        return torch.sparse.FloatTensor(indices, torch.from_numpy(matrix.data), torch.Size(matrix.shape))

    def pre_epoch_processing(self):
        pass

    def forward(self, adj, train=False):
        items = self.item_id_embedding.weight
        v = torch.multiply(items, self.gate_v(self.image_trs(self.image_embedding.weight)))
        t = torch.multiply(items, self.gate_t(self.text_trs(self.text_embedding.weight)))
        layer = torch.cat([self.user_embedding.weight, items], dim=0)
        layers = [layer]
        for _ in range(self.n_ui_layers):
            layer = torch.sparse.mm(adj, layer)
            layers += [layer]
        content = torch.stack(layers, dim=1).mean(dim=1, keepdim=False)
        for _ in range(self.n_layers):
            v, t = torch.sparse.mm(self.image_original_adj, v), torch.sparse.mm(self.text_original_adj, t)
        v = torch.cat([torch.sparse.mm(self.R, v), v], dim=0)
        t = torch.cat([torch.sparse.mm(self.R, t), t], dim=0)
        weights = self.softmax(torch.cat([self.query_common(v), self.query_common(t)], dim=-1))
        common = weights[:, 0].unsqueeze(dim=1) * v + weights[:, 1].unsqueeze(dim=1) * t
        sep_v = torch.multiply(self.gate_image_prefer(content), v - common)
        sep_t = torch.multiply(self.gate_text_prefer(content), t - common)
        side = (sep_v + sep_t + common) / 3
        users, items = torch.split(content + side, [self.n_users, self.n_items], dim=0)
        return (users, items, side, content) if train else (users, items)

    def InfoNCE(self, view1, view2, temperature):
        view1, view2 = F.normalize(view1, dim=1), F.normalize(view2, dim=1)
        pos = torch.exp((view1 * view2).sum(dim=-1) / temperature)
        every = torch.exp(torch.matmul(view1, view2.transpose(0, 1)) / temperature).sum(dim=1)
        return torch.mean(-torch.log(pos / every))

    def calculate_loss(self, interaction):
        users, pos_items, neg_items = interaction[0], interaction[1], interaction[2]
        ua, ia, side, content = self.forward(self.norm_adj, train=True)
        u, p, n = ua[users], ia[pos_items], ia[neg_items]
        mf_loss = -torch.mean(F.logsigmoid(torch.sum(u * p, dim=1) - torch.sum(u * n, dim=1)))
        regularizer = 1.0 / 2 * (u**2).sum() + 1.0 / 2 * (p**2).sum() + 1.0 / 2 * (n**2).sum()
        emb_loss = self.reg_weight * regularizer / self.batch_size
        side_u, side_i = torch.split(side, [self.n_users, self.n_items], dim=0)
        content_u, content_i = torch.split(content, [self.n_users, self.n_items], dim=0)
        cl_loss = self.InfoNCE(side_i[pos_items], content_i[pos_items], 0.2)
        cl_loss = cl_loss + self.InfoNCE(side_u[users], content_u[users], 0.2)
        return mf_loss + emb_loss + self.cl_loss * cl_loss

    def full_sort_predict(self, interaction):
        users, items = self.forward(self.norm_adj)
        return torch.matmul(users[interaction[0]], items.transpose(0, 1))
