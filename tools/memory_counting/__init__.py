"""Predictions of a training step on a card, without the card: memory, operations, seconds."""
