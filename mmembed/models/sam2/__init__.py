"""SAM 2 (arXiv:2408.00714) for pictures, on transformers' model: opened, prompted, its encoded pictures kept."""
