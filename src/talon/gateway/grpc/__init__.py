"""The gateway over gRPC: messages in and out, the operations are those of talon.gateway.api."""
