"""What a training job needs of its cluster."""
