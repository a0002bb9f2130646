"""Kafka in, Kafka out: the wire contract, the lanes, publishing, and the client."""
