"""A data set's photos, decoded once, split and put into batches."""
