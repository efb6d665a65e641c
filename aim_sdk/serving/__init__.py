"""Few-shot as a service: OpenAI's chat API over any backend, with named banks."""
