"""Versions, aliases and tags in MLflow's registry."""
