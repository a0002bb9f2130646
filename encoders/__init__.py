"""Bytes to vectors: text, images and sound. Nothing here knows of Kafka or of profiles."""
