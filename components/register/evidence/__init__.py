"""What is known of the models that are compared."""
