"""Where items and profiles live: one interface, the engine embedded or as a server."""
