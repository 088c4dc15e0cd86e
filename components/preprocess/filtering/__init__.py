"""Which texts stay: filters and the measures they look at."""
