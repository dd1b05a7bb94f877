"""From people to features: prompts, frozen backbones, pooling."""
