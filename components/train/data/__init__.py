"""What a training step sees: documents, windows, batches, and the course of a run."""
