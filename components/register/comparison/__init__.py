"""What a verdict rests on, as data."""
