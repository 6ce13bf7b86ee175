"""Weights and models of others: by name, hash and licence, fetched once and kept."""
