"""What operators see: spans (`tracing`, `setup`) and log lines (`logs`)."""
