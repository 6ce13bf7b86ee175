"""From labelled data to a checkpoint."""
