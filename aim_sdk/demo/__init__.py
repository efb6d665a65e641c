"""The demo behind ``aim-icl demo``: tasks that a backend brings, measured under every mode."""
