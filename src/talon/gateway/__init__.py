"""The gateway: checks requests, writes wakeups, and shows what the journal holds. It asks no worker anything."""
