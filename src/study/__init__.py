"""Studies: many models, data sets, settings and seeds, run anywhere, selected by validation, reported once."""
