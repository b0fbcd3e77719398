"""The compiled hot path: what happens to every request. Sources are in ext/, one module each."""
