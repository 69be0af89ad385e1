"""Vectors → answers: the embedding store on disk and the gRPC service over it."""
