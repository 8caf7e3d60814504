"""The messages and stubs of gRPC, generated from proto/talon/v1 (`make proto`)."""
