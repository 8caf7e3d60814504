"""Secrets' values: encrypted before the store sees them, read by name when they are needed (decision 0009)."""
