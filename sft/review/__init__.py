"""People read records, and decide which are trained."""
