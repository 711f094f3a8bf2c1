"""LLaVA-NeXT, LLaVA-OneVision and LLaVA on the installed transformers."""
