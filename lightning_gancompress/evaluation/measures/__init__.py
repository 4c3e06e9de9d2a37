"""The measures of a test, each a small class. A new metric is one and an entry in the registry."""
