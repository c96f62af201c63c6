# ruff: noqa  (in the manner of files written for MMRec)
from common.depths import TWO as DEPTH
