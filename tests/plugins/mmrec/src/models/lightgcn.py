# ruff: noqa  (in the manner of files written for MMRec)
import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn

from common.abstract_recommender import GeneralRecommender
from common.init import xavier_uniform_initialization
from common.loss import BPRLoss, EmbLoss


class LIGHTGCN(GeneralRecommender):
    def __init__(self, config, dataset):
        super(LIGHTGCN, self).__init__(config, dataset)
        self.interaction_matrix = dataset.inter_matrix(form="coo").astype(np.float32)
        self.latent_dim, self.n_layers = config["embedding_size"], config["n_layers"]
        self.reg_weight = config["reg_weight"]
        self.mf_loss, self.reg_loss = BPRLoss(), EmbLoss()
        initial = nn.init.xavier_uniform_
        self.embedding_dict = nn.ParameterDict(
            {
                "user_emb": nn.Parameter(initial(torch.empty(self.n_users, self.latent_dim))),
                "item_emb": nn.Parameter(initial(torch.empty(self.n_items, self.latent_dim))),
            }
        )
        self.norm_adj_matrix = self.get_norm_adj_mat().to(self.device)
        self.apply(xavier_uniform_initialization)

    def get_norm_adj_mat(self):
        n = self.n_users + self.n_items
        A = sp.dok_matrix((n, n), dtype=np.float32)
        inter, inter_t = self.interaction_matrix, self.interaction_matrix.transpose()
        data = dict(zip(zip(inter.row, inter.col + self.n_users), [1] * inter.nnz))
        data.update(dict(zip(zip(inter_t.row + self.n_users, inter_t.col), [1] * inter_t.nnz)))
        A._update(data)
        diag = np.array((A > 0).sum(axis=1).flatten())[0] + 1e-7
        D = sp.diags(np.power(diag, -0.5))
        L = sp.coo_matrix(D * A * D)
        return torch.sparse.FloatTensor(torch.LongTensor([L.row, L.col]), torch.FloatTensor(L.data), torch.Size((n, n)))

    def forward(self):
        ego = torch.cat([self.embedding_dict["user_emb"], self.embedding_dict["item_emb"]], 0)
        layers = [ego]
        for _ in range(self.n_layers):
            layers.append(torch.sparse.mm(self.norm_adj_matrix, layers[-1]))
        mean = torch.mean(torch.stack(layers, dim=1), dim=1)
        return mean[: self.n_users, :], mean[self.n_users :, :]

    def calculate_loss(self, interaction):
        user, pos_item, neg_item = interaction[0], interaction[1], interaction[2]
        users, items = self.forward()
        u, p, n = users[user, :], items[pos_item, :], items[neg_item, :]
        mf_loss = self.mf_loss(torch.mul(u, p).sum(dim=1), torch.mul(u, n).sum(dim=1))
        ego = self.embedding_dict
        reg_loss = self.reg_loss(ego["user_emb"][user], ego["item_emb"][pos_item], ego["item_emb"][neg_item])
        return mf_loss + self.reg_weight * reg_loss

    def full_sort_predict(self, interaction):
        users, items = self.forward()
        return torch.matmul(users[interaction[0], :], items.transpose(0, 1))
