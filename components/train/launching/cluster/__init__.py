"""A training job on Kubernetes: made, adopted, watched, explained and deleted. Only this room imports its client."""
