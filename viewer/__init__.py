"""The live viewer: watches a training run and shows finished ones; nothing in the trainer's packages imports it."""
