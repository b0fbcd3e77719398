# Only compiled code calls what is in here.
