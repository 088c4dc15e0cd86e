"""Chat: talk to a registered model, on a page and through an OpenAI-compatible endpoint."""
