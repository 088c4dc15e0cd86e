"""Register: the gate that compares models, and MLflow's model registry."""
