# Used by other modules of ext/ only.
