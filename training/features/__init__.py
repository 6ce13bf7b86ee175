"""Extractors over manifests: what each utterance becomes, cached by content."""
