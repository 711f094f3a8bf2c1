"""Exact nearest neighbours over embeddings."""
