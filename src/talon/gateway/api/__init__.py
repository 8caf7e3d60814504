"""What can be asked of a gateway: one function an operation, the same under HTTP and gRPC."""
