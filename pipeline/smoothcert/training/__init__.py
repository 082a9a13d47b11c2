"""Fitting a defence, or the encoder itself: data, losses, loop, checkpoints (torch; no Ray, no MLflow)."""
