"""Losses eat embeddings only: tensors in, tensors out."""
