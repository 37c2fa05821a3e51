"""Benchmarks, the evaluation of models on them, and the scoreboard."""
