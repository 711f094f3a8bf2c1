"""The workloads: each function takes a Bench and gives a Comparison; ``scripts/benchmark/catalogue.py`` names them."""
