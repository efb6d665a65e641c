"""A vLLM server as the engine: it answers over HTTP; demonstrations are read elsewhere."""
