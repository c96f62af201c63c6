"""A small part of PyTorch Geometric, for machines without it: message passing and the helpers that model files use."""

__version__ = "2.0.0"
