"""Networks of the learned metrics: where their weights are, how they are read, what they compute."""
