"""The plant's library: everything that does the work, with no orchestrator in it.

Functions here take plain paths, settings and numbers, write finished files into the folder they are given, and return
frozen summaries or counts by name. Nothing below this package imports Dagster or reads the environment.
"""
