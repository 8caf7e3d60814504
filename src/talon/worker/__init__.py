"""The worker: claims sessions, runs their turns, keeps its lease, drains, and recovers what others lost."""
