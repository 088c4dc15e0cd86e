"""What the stages share: storage, manifests, fingerprints, tracking, settings, progress and errors."""
