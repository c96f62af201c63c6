# ruff: noqa  (in the manner of files written for MMRec)
import os

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn
import torch.nn.functional as F

from common.abstract_recommender import GeneralRecommender
from common.loss import BPRLoss, EmbLoss, L2Loss
from utils.utils import build_knn_neighbourhood, build_sim, compute_normalized_laplacian


class LATTICE(GeneralRecommender):
    def __init__(self, config, dataset):
        super(LATTICE, self).__init__(config, dataset)
        self.weight_size = [config["embedding_size"]] + config["weight_size"]
        self.n_ui_layers, self.knn_k = len(config["weight_size"]), config["knn_k"]
        self.cf_model, self.lambda_coeff, self.n_layers = config["cf_model"], config["lambda_coeff"], config["n_layers"]
        self.reg_weight, dim = config["reg_weight"], config["feat_embed_dim"]
        self.build_item_graph = True
        self.interaction_matrix = dataset.inter_matrix(form="coo").astype(np.float32)
        self.norm_adj = self.get_adj_mat()
        self.norm_adj = self.sparse_mx_to_torch_sparse_tensor(self.norm_adj).float().to(self.device)
        self.item_adj = None
        self.user_embedding = nn.Embedding(self.n_users, config["embedding_size"])
        self.item_id_embedding = nn.Embedding(self.n_items, config["embedding_size"])
        dataset_path = os.path.abspath(config["data_path"] + config["dataset"])
        adj_file = os.path.join(dataset_path, "image_adj_{}.pt".format(self.knn_k))
        self.image_embedding = nn.Embedding.from_pretrained(self.v_feat, freeze=False)
        self.text_embedding = nn.Embedding.from_pretrained(self.t_feat, freeze=False)
        if os.path.exists(adj_file):
            image_adj = torch.load(adj_file)
        else:
            image_adj = build_knn_neighbourhood(build_sim(self.image_embedding.weight.detach()), topk=self.knn_k)
            image_adj = compute_normalized_laplacian(image_adj)
            torch.save(image_adj, adj_file)
        self.image_original_adj = image_adj.cuda()
        self.image_trs = nn.Linear(self.v_feat.shape[1], dim)
        self.modal_weight, self.softmax = nn.Parameter(torch.Tensor([0.5, 0.5])), nn.Softmax(dim=0)

    def pre_epoch_processing(self):
        self.build_item_graph = True

    def get_adj_mat(self):
        n = self.n_users + self.n_items
        adj_mat = sp.dok_matrix((n, n), dtype=np.float32).tolil()
        adj_mat[: self.n_users, self.n_users :] = self.interaction_matrix.tolil()
        adj_mat[self.n_users :, : self.n_users] = self.interaction_matrix.tolil().T
        adj_mat = adj_mat.todok()
        rowsum = np.array(adj_mat.sum(1))
        d_inv = np.power(rowsum, -1).flatten()
        d_inv[np.isinf(d_inv)] = 0.0
        return sp.diags(d_inv).dot(adj_mat).tocoo().tocsr()

    def sparse_mx_to_torch_sparse_tensor(self, sparse_mx):
        sparse_mx = sparse_mx.tocoo().astype(np.float32)
        indices = torch.from_numpy(np.vstack((sparse_mx.row, sparse_mx.col)).astype(np.int64))
        return torch.sparse.FloatTensor(indices, torch.from_numpy(sparse_mx.data), torch.Size(sparse_mx.shape))

    def forward(self, adj, build_item_graph=False):
        if build_item_graph:
            learned = build_knn_neighbourhood(build_sim(self.image_trs(self.image_embedding.weight)), topk=self.knn_k)
            learned = compute_normalized_laplacian(learned)
            self.item_adj = (1 - self.lambda_coeff) * learned + self.lambda_coeff * self.image_original_adj
        else:
            self.item_adj = self.item_adj.detach()
        h = self.item_id_embedding.weight
        for _ in range(self.n_layers):
            h = torch.mm(self.item_adj, h)
        ego = torch.cat((self.user_embedding.weight, self.item_id_embedding.weight), dim=0)
        every = [ego]
        for _ in range(self.n_ui_layers):
            ego = torch.sparse.mm(adj, ego)
            every += [ego]
        users, items = torch.split(torch.stack(every, dim=1).mean(dim=1), [self.n_users, self.n_items], dim=0)
        return users, items + F.normalize(h, p=2, dim=1)

    def calculate_loss(self, interaction):
        users, pos_items, neg_items = interaction[0], interaction[1], interaction[2]
        ua, ia = self.forward(self.norm_adj, build_item_graph=self.build_item_graph)
        self.build_item_graph = False
        u, p, n = ua[users], ia[pos_items], ia[neg_items]
        regularizer = 1.0 / 2 * (u**2).sum() + 1.0 / 2 * (p**2).sum() + 1.0 / 2 * (n**2).sum()
        mf_loss = -torch.mean(F.logsigmoid(torch.mul(u, p).sum(dim=1) - torch.mul(u, n).sum(dim=1)))
        return mf_loss, self.reg_weight * (regularizer / self.batch_size), 0.0

    def full_sort_predict(self, interaction):
        u, i = self.forward(self.norm_adj, build_item_graph=True)
        return torch.matmul(u[interaction[0]], i.transpose(0, 1))
