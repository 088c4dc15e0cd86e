"""The Kubernetes cluster: its API, the training job's settings, and what tells our objects from others."""
