"""Training: cached gradients, the LightningModule, optimisers and stages."""
