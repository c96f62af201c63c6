# ruff: noqa  (in the manner of files written for MMRec)
TWO = 2
