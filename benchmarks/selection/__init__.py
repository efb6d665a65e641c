"""Which selector earns its place: tables of right answers, and latency."""
