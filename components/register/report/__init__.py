"""The report of a registration and the numbers that others show of it."""
