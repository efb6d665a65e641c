"""The built-in backends, registered through entry points like anybody else's."""
