"""Images of one's own: read, prepared as scenes, and their objects counted and boxed."""
