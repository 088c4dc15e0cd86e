"""Retraction watch: which articles that a model was trained on have been retracted or withdrawn since."""
