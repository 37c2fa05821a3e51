"""CLIP models: pretrained towers, features, similarity scores and training."""
