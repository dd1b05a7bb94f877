"""The HTTP service: recommendations, embeddings and changes of galleries, for other programs."""
