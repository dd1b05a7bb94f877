"""Fine-tuning of backbones with low-rank adapters, where there are enough pairs for it."""
