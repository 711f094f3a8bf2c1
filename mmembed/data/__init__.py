"""Training data: tables of pairs, mixtures of them, and the global batch of every step."""
