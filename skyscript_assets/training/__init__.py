"""Continual pre-training in processes of its own: the job, its worker, and what starts it. `lib.training` trains."""
