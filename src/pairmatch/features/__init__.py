"""Feature extraction: prompts, frozen backbones, poolers and the feature store."""
