"""The built-in backends, registered through entry points like those of any other package."""
