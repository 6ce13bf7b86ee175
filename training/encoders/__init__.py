"""Training of what the extractors learn: one network or adapter a modality, each from labelled data of its own kind."""
