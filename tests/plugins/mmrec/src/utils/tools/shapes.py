# ruff: noqa  (in the manner of files written for MMRec)
def doubled(n):
    return 2 * n
