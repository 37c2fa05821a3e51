"""Training: alignment of locked towers, continual pre-training, and trained models on disk."""
