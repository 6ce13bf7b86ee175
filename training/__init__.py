"""Training: from labelled data to a checkpoint."""
