"""Published data sets, as they lie on disk after their download."""
