"""Who calls, and whether they may: credentials, and one policy over every method of every service."""
