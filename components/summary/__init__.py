"""Summary: what a pipeline run did, written whatever happened."""
