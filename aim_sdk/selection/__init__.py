"""Which demonstrations each query is shown."""
