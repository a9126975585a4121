"""The trainer and what it optimises."""
