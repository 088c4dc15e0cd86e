"""JATS to text."""
